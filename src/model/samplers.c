/* The table of samplers: see sampler.h. Another one is a function and a row.
 *
 * Below a = sqrt(ac_t), s = sqrt(1-ac_t), sigma = s/a, lambda = -log sigma, with ' at t_prev; m is what the network
 * says of the clean image. Papers and k-diffusion write Euler's and Heun's steps for y = x/a, whose noise has the
 * deviation sigma: dy/dsigma = (y - m)/sigma (Karras et al. 2022, eq. 1, 3). In the last step sigma' is 0, and all that
 * follow give x' = m. */
#include "sdlora/sampler.h"

#include <math.h>
#include <string.h>

static void ddpm_step(const SamplerStep *s)
{
    diffusion_ddpm_step(s->x, s->out, s->noise, s->t, s->t_prev, s->n, s->clip, s->d);
}

static void ddim_step(const SamplerStep *s)
{
    diffusion_ddim_step(s->x, s->out, s->noise, s->t, s->t_prev, s->eta, s->n, s->clip, s->d);
}

/* y' = y + (sigma' - sigma) (y - m)/sigma: times a', that is x' = s'/s x + (a' - a s'/s) m, DDIM with eta 0. */
static void euler_step(const SamplerStep *s)
{
    diffusion_ddim_step(s->x, s->out, NULL, s->t, s->t_prev, 0, s->n, s->clip, s->d);
}

/* Euler to sigma_down = sqrt(sigma'^2 - sigma_up^2), then noise of sigma_up = sigma' sqrt(1 - sigma'^2/sigma^2)
 * (k-diffusion, get_ancestral_step): a' sigma_up is DDIM's sigma with eta 1, and a' sigma_down its direction. */
static void euler_ancestral_step(const SamplerStep *s)
{
    diffusion_ddim_step(s->x, s->out, s->noise, s->t, s->t_prev, 1, s->n, s->clip, s->d);
}

/* ---- sums of what is kept ---- */

typedef struct Level {
    double a, s, lambda;
} Level;

static Level level(const Diffusion *d, int t)
{
    const double ac = t < 0 ? 1 : d->alphas_cumprod[t];
    return (Level){sqrt(ac), sqrt(1 - ac), (log(ac) - log1p(-ac)) / 2};
}

enum { TERMS = 4 };
typedef struct Term {
    double c;
    const float *v; /* NULL: no term */
} Term;

/* to = the sum of c v; it may be one of them. */
static void put_sum(float *to, const SamplerStep *s, const Term term[TERMS])
{
    for (size_t i = 0; i < s->n; i++) {
        double sum = 0;
        for (int k = 0; k < TERMS; k++)
            if (term[k].v)
                sum += term[k].c * (double)term[k].v[i];
        if (s->clip == CLIP_XT)
            sum = sum < -1 ? -1 : sum > 1 ? 1 : sum;
        to[i] = (float)sum;
    }
}

/* Heun (Karras et al. 2022, algorithm 1, without churn): Euler to y1, the network there, and the mean of both slopes:
 * y' = y + (sigma' - sigma)/2 ((y - m)/sigma + (y1 - m1)/sigma'). */
static void heun_step(const SamplerStep *s)
{
    const Level from = level(s->d, s->t), to = level(s->d, s->t_prev);
    const double shrink = to.s / from.s, ratio = shrink * from.a / to.a; /* sigma'/sigma */

    if (s->stage == 0) {
        memcpy(s->base, s->x, s->n * sizeof *s->x);
        put_sum(s->x, s, (Term[TERMS]){{shrink, s->x}, {to.a - from.a * shrink, s->x0[0]}});
        return;
    }
    put_sum(s->x, s,
            (Term[TERMS]){{(to.a / from.a + shrink) / 2, s->base},
                          {(to.a - from.a * shrink) / 2, s->x0[1]},
                          {(1 - 1 / ratio) / 2, s->x},
                          {to.a * (1 / ratio - 1) / 2, s->x0[0]}});
}

/* DPM-Solver++(2M) (Lu et al. 2022b, algorithm 2), with h = lambda' - lambda and h1 that of the step before:
 * x' = s'/s x - a' (exp(-h) - 1) ((1 + w) m - w m1), w = h/(2 h1). First order at both ends, as k-diffusion and
 * diffusers have it: in the first step there is no m1, in the last h is infinite. */
static void multistep(const SamplerStep *s)
{
    const Level from = level(s->d, s->t), to = level(s->d, s->t_prev);
    const double shrink = to.s / from.s, gain = to.a - from.a * shrink;
    double w = 0;

    if (s->x0[1] && s->t_prev >= 0)
        w = (to.lambda - from.lambda) / (from.lambda - level(s->d, s->times[s->step - 1]).lambda) / 2;
    put_sum(s->x, s, (Term[TERMS]){{shrink, s->x}, {gain * (1 + w), s->x0[0]}, {-gain * w, w != 0 ? s->x0[1] : NULL}});
}

/* UniC (Zhao et al. 2023, algorithm 1, for what predicts the clean image, B(h) = exp(h) - 1): the step that led here,
 * from x = base, once more, now that m at its end is known. With h of that step, hh = -h and g = -a' (exp(hh) - 1):
 * x' = s'/s base + g (m1 + p0 (m2 - m1)/r + p1 (m - m1)), r = (lambda before - lambda of base)/h, where
 * p0 + p1 = b1, r p0 + p1 = b2, b1 = u/(exp(hh) - 1), b2 = 2 (u/hh - 1/2)/(exp(hh) - 1), u = (exp(hh) - 1)/hh - 1;
 * without m2, p0 = 0 and p1 = 1/2. (diffusers' bh2.) */
static void correct(const SamplerStep *s)
{
    const Level from = level(s->d, s->times[s->step - 1]), to = level(s->d, s->t);
    const double shrink = to.s / from.s, gain = to.a - from.a * shrink, h = to.lambda - from.lambda, e = expm1(-h);
    double p0 = 0, p1 = 0.5, r = 1;

    if (s->x0[2]) {
        const double u = e / -h - 1, b1 = u / e, b2 = 2 * (u / -h - 0.5) / e;
        r = (level(s->d, s->times[s->step - 2]).lambda - from.lambda) / h;
        p0 = (b1 - b2) / (1 - r);
        p1 = b1 - p0;
    }
    put_sum(
        s->x, s,
        (Term[TERMS]){
            {shrink, s->base}, {gain * (1 - p0 / r - p1), s->x0[1]}, {gain * p0 / r, s->x0[2]}, {gain * p1, s->x0[0]}});
}

/* UniPC of order 2: UniC, and then UniP-2, which with this B(h) is the step of DPM-Solver++(2M). */
static void unipc_step(const SamplerStep *s)
{
    if (s->x0[1])
        correct(s);
    memcpy(s->base, s->x, s->n * sizeof *s->x);
    multistep(s);
}

/* ---- the table ---- */

/* How many steps: doc/recipes.md. Heun divides by sigma' what sigma is large for: only spacings that shrink it in
 * small factors bear that. */
/* clang-format off */
const SamplerDef SAMPLERS[] = {
    [SAMPLER_DDPM] = {.name = "ddpm", .steps = 0, .noise = true, .step = ddpm_step,
                      .aliases = {"DDPMScheduler"}},
    [SAMPLER_DDIM] = {.name = "ddim", .steps = 50, .noise = true, .uses_eta = true, .step = ddim_step,
                      .aliases = {"DDIMScheduler"}},
    [SAMPLER_UNIPC] = {.name = "unipc", .steps = 10, .base = true, .history = 2, .step = unipc_step,
                       .aliases = {"uni_pc", "uni_pc_bh2", "sample_unipc", "UniPCMultistepScheduler"}},
    {.name = "euler", .steps = 50, .step = euler_step,
     .aliases = {"k_euler", "sample_euler", "EulerDiscreteScheduler"}},
    {.name = "euler-a", .steps = 50, .noise = true, .step = euler_ancestral_step,
     .aliases = {"euler_a", "k_euler_a", "euler_ancestral", "k_euler_ancestral", "sample_euler_ancestral",
                 "EulerAncestralDiscreteScheduler"}},
    {.name = "heun", .steps = 12, .two_stages = true, .base = true, .history = 1, .spacing = SPACING_KARRAS,
     .step = heun_step, .aliases = {"k_heun", "sample_heun", "HeunDiscreteScheduler"}},
    {.name = "dpm++2m", .steps = 15, .history = 1, .step = multistep,
     .aliases = {"dpm++_2m", "dpmpp_2m", "k_dpmpp_2m", "sample_dpmpp_2m", "DPMSolverMultistepScheduler"}},
    {.name = NULL},
};
/* clang-format on */

const SamplerDef *sampler_find(const char *name)
{
    for (const SamplerDef *d = SAMPLERS; d->name; d++) {
        if (!strcmp(name, d->name))
            return d;
        for (const char *const *a = d->aliases; *a; a++)
            if (!strcmp(name, *a))
                return d;
    }
    return NULL;
}

int sampler_steps(const SamplerDef *d, const ModelConfig *m)
{
    return d->steps == 0 || d->steps > m->timesteps ? m->timesteps : d->steps;
}
