/* Samplers on a mixture of two Gaussians, whose exact answers are known. What the reverse process without noise makes
 * of a value is known too: it carries one density into the other and keeps the order, so that it maps quantiles to
 * quantiles. How fast the error falls with the number of steps is the order of a method. And each step in the
 * coordinates in which its authors write it. */
#include "sampler_util.h"

enum { T = 100000, VALUES = 41, STEPS_MAX = 320 };

static const double WEIGHT[2] = {0.35, 0.65}, MEAN[2] = {-0.5, 0.4}, SIGMA[2] = {0.25, 0.4};

typedef struct Mixture {
    const Diffusion *d;
} Mixture;

static double ac_of(const Diffusion *d, int t)
{
    return t < 0 ? 1 : d->alphas_cumprod[t];
}

/* E[x_0 | x_t = x]: Bayes for each Gaussian. */
static double denoised(double x, double ac)
{
    double top = 0, bottom = 0;

    for (int k = 0; k < 2; k++) {
        const double variance = ac * SIGMA[k] * SIGMA[k] + 1 - ac, away = x - sqrt(ac) * MEAN[k];
        const double p = WEIGHT[k] / sqrt(variance) * exp(-away * away / 2 / variance);
        top += p * (MEAN[k] + sqrt(ac) * SIGMA[k] * SIGMA[k] / variance * away);
        bottom += p;
    }
    return top / bottom;
}

/* The share of x_t below x */
static double share(double x, double ac)
{
    double sum = 0;

    for (int k = 0; k < 2; k++)
        sum += WEIGHT[k] / 2 * erfc((sqrt(ac) * MEAN[k] - x) / sqrt(2 * (ac * SIGMA[k] * SIGMA[k] + 1 - ac)));
    return sum;
}

static double quantile(double p, double ac)
{
    double low = -10, high = 10;

    for (int i = 0; i < 100; i++)
        *(share((low + high) / 2, ac) < p ? &low : &high) = (low + high) / 2;
    return low;
}

static void answer(void *ctx, real *out, const float *x, int t, size_t n)
{
    const Diffusion *d = ((const Mixture *)ctx)->d;
    const double ac = ac_of(d, t), a = sqrt(ac), s = sqrt(1 - ac);

    for (size_t i = 0; i < n; i++) {
        const double m = denoised((double)x[i], ac), eps = ((double)x[i] - a * m) / s;
        out[i] = (real)(d->predict == PREDICT_EPS ? eps : d->predict == PREDICT_V ? a * eps - s * m : m);
    }
}

/* The largest error after all steps but the last, which is a step of first order for all. */
static double error_of(const SamplerDef *def, const Diffusion *d, int steps, Spacing spacing)
{
    static int times[STEPS_MAX + 1];
    Mixture m = {d};
    const Walk w = {.def = def,
                    .d = d,
                    .times = times,
                    .steps = steps,
                    .n = VALUES,
                    .clip = CLIP_NONE,
                    .answer = answer,
                    .ctx = &m};
    float x[VALUES];
    double start[VALUES], most = 0;

    diffusion_timesteps(times, d, steps, spacing);
    for (int i = 0; i < VALUES; i++) {
        start[i] = share(-2 + 4.0 * i / (VALUES - 1), ac_of(d, times[0]));
        x[i] = (float)(-2 + 4.0 * i / (VALUES - 1));
    }
    walk(x, &w, 0, steps - 1);
    for (int i = 0; i < VALUES; i++)
        most = fmax(most, fabs((double)x[i] - quantile(start[i], ac_of(d, times[steps - 1]))));
    return most;
}

static void order_case(const char *name, PredictKind predict, Spacing spacing, int steps, double low, double high)
{
    Diffusion d;
    Err err;
    double coarse, fine, order;

    check_ok(diffusion_init(&d, SCHEDULE_COSINE, T, predict, &err), err);
    coarse = error_of(sampler_named(name), &d, steps, spacing);
    fine = error_of(sampler_named(name), &d, 2 * steps, spacing);
    order = log2(coarse / fine);
    if (getenv("SHOW_ORDERS"))
        printf("%s, %s, %s: %d steps %.3g, %d steps %.3g, order %.2f\n", name, PREDICT_NAMES[predict],
               SPACING_NAMES[spacing], steps, coarse, 2 * steps, fine, order);
    if (!(order > low && order < high))
        fail_msg("%s, %s, %s: %d steps are off by %.3g, %d by %.3g: order %.2f is not %g to %g", name,
                 PREDICT_NAMES[predict], SPACING_NAMES[spacing], steps, coarse, 2 * steps, fine, order, low, high);
    diffusion_free(&d);
}

static void test_orders(void **state)
{
    (void)state;
    for (PredictKind p = PREDICT_EPS; p <= PREDICT_X0; p++) {
        for (Spacing spacing = SPACING_KARRAS; spacing <= SPACING_LOGSNR; spacing++) {
            order_case("ddim", p, spacing, 80, 0.85, 1.15);
            order_case("euler", p, spacing, 80, 0.85, 1.15);
            order_case("heun", p, spacing, 40, 1.75, 2.4);
            order_case("dpm++2m", p, spacing, 80, 1.7, 2.3);
            order_case("unipc", p, spacing, 40, 2.3, 3.6); /* UniC adds one to the order of what it corrects */
        }
    }
}

/* ---- the steps as published ---- */

enum { STEPS = 9, TIMES = 1000 };

static float step_noise[STEPS][VALUES];

static const float *noise_of(void *ctx, int step)
{
    (void)ctx;
    return step_noise[step];
}

typedef struct Published {
    const Diffusion *d;
    const int *times;
    double y[VALUES]; /* x / sqrt(ac), whose noise has the deviation sigma */
} Published;

static double sigma_at(const Published *p, int s)
{
    return sqrt(1 / ac_of(p->d, p->times[s]) - 1);
}

/* k-diffusion's model(x, sigma) */
static double model_at(double y, double sigma)
{
    const double ac = 1 / (1 + sigma * sigma);
    return denoised(sqrt(ac) * y, ac);
}

/* sample_euler and sample_euler_ancestral (k-diffusion, sampling.py; eta 1) */
static void published_euler(Published *p, bool ancestral)
{
    for (int s = 0; s < STEPS; s++)
        for (int i = 0; i < VALUES; i++) {
            const double sigma = sigma_at(p, s), next = sigma_at(p, s + 1);
            const double up = ancestral ? fmin(next, sqrt(next * next * (sigma * sigma - next * next)) / sigma) : 0;
            const double down = sqrt(next * next - up * up);
            p->y[i] += (p->y[i] - model_at(p->y[i], sigma)) / sigma * (down - sigma);
            if (next > 0)
                p->y[i] += (double)step_noise[s][i] * up;
        }
}

/* sample_heun, without churn */
static void published_heun(Published *p)
{
    for (int s = 0; s < STEPS; s++)
        for (int i = 0; i < VALUES; i++) {
            const double sigma = sigma_at(p, s), next = sigma_at(p, s + 1);
            const double slope = (p->y[i] - model_at(p->y[i], sigma)) / sigma;
            const double y = p->y[i] + slope * (next - sigma);
            p->y[i] = next > 0 ? p->y[i] + (slope + (y - model_at(y, next)) / next) / 2 * (next - sigma) : y;
        }
}

/* sample_dpmpp_2m */
static void published_2m(Published *p)
{
    for (int i = 0; i < VALUES; i++) {
        double old = 0;
        for (int s = 0; s < STEPS; s++) {
            const double sigma = sigma_at(p, s), next = sigma_at(p, s + 1), h = log(sigma) - log(next);
            const double m = model_at(p->y[i], sigma);
            double d = m;
            if (s > 0 && next > 0) {
                const double r = (log(sigma_at(p, s - 1)) - log(sigma)) / h;
                d = (1 + 1 / (2 * r)) * m - 1 / (2 * r) * old;
            }
            p->y[i] = next / sigma * p->y[i] - expm1(-h) * d;
            old = m;
        }
    }
}

/* UniPCMultistepScheduler's multistep_uni_c_bh_update and multistep_uni_p_bh_update (diffusers; solver_order 2, bh2,
 * predict_x0), which have alpha 1 for y, and lambda = -log sigma. */
static void published_unipc(Published *p)
{
    for (int i = 0; i < VALUES; i++) {
        double y = p->y[i], last = 0, m[3] = {0};
        for (int s = 0; s < STEPS; s++) {
            memmove(m + 1, m, 2 * sizeof *m);
            m[0] = model_at(y, sigma_at(p, s));
            if (s > 0) {
                const double from = sigma_at(p, s - 1), to = sigma_at(p, s), hh = log(to) - log(from);
                const double phi1 = expm1(hh), b_h = phi1, phi2 = phi1 / hh - 1, phi3 = phi2 / hh - 0.5;
                const double b[2] = {phi2 / b_h, phi3 * 2 / b_h};
                double rho[2] = {0, 0.5}, d1 = 0;
                if (s > 1) { /* [1 1; r 1] rho = b, by Cramer's rule */
                    const double r = (log(from) - log(sigma_at(p, s - 2))) / -hh;
                    rho[0] = (b[0] - b[1]) / (1 - r);
                    rho[1] = (b[1] - r * b[0]) / (1 - r);
                    d1 = (m[2] - m[1]) / r;
                }
                y = to / from * last - phi1 * m[1] - b_h * (rho[0] * d1 + rho[1] * (m[0] - m[1]));
            }
            last = y;
            if (s == STEPS - 1) {
                y = m[0];
            } else {
                const double from = sigma_at(p, s), to = sigma_at(p, s + 1), hh = log(to) - log(from);
                const double r = s > 0 ? (log(from) - log(sigma_at(p, s - 1))) / -hh : 1;
                y = to / from * y - expm1(hh) * (m[0] + (s > 0 ? 0.5 * (m[1] - m[0]) / r : 0));
            }
        }
        p->y[i] = y;
    }
}

/* x_p given x_t and x_0: x_p ~ N(a_p x_0, 1 - ac_p) seen through x_t ~ N(k x_p, 1 - k^2), k^2 = ac_t/ac_p. */
static void published_ddpm(Published *p)
{
    for (int s = 0; s < STEPS; s++)
        for (int i = 0; i < VALUES; i++) {
            const double ac = ac_of(p->d, p->times[s]), prev = ac_of(p->d, p->times[s + 1]), k = sqrt(ac / prev);
            const double x = sqrt(ac) * p->y[i], m = denoised(x, ac);
            double variance, mean;
            if (p->times[s + 1] < 0) {
                p->y[i] = m;
                continue;
            }
            variance = 1 / (1 / (1 - prev) + k * k / (1 - k * k));
            mean = variance * (sqrt(prev) * m / (1 - prev) + k * x / (1 - k * k));
            p->y[i] = (mean + sqrt(variance) * (double)step_noise[s][i]) / sqrt(prev);
        }
}

static void published(Published *p, const char *name)
{
    if (!strcmp(name, "heun"))
        published_heun(p);
    else if (!strcmp(name, "dpm++2m"))
        published_2m(p);
    else if (!strcmp(name, "unipc"))
        published_unipc(p);
    else if (!strcmp(name, "ddpm"))
        published_ddpm(p);
    else
        published_euler(p, !strcmp(name, "euler-a"));
}

static void test_published(void **state)
{
    (void)state;
    fill_random(&step_noise[0][0], (size_t)STEPS * VALUES, 5, 1);
    for (const SamplerDef *def = SAMPLERS; def->name; def++)
        for (Spacing spacing = SPACING_TRAILING; spacing <= SPACING_LOGSNR; spacing++) {
            int times[STEPS + 1];
            float x[VALUES];
            Diffusion d;
            Err err;
            Published p = {.d = &d, .times = times};
            Mixture m = {&d};
            const Walk w = {.def = def,
                            .d = &d,
                            .times = times,
                            .steps = STEPS,
                            .n = VALUES,
                            .clip = CLIP_NONE,
                            .answer = answer,
                            .noise = noise_of,
                            .ctx = &m};
            check_ok(diffusion_init(&d, SCHEDULE_LINEAR, TIMES, PREDICT_V, &err), err);
            diffusion_timesteps(times, &d, STEPS, spacing);
            for (int i = 0; i < VALUES; i++) {
                x[i] = (float)(-2 + 4.0 * i / (VALUES - 1));
                p.y[i] = (double)x[i] / sqrt(ac_of(&d, times[0]));
            }
            walk(x, &w, 0, STEPS);
            published(&p, def->name);
            for (int i = 0; i < VALUES; i++)
                if (!(fabs((double)x[i] - p.y[i]) <= 2e-5))
                    fail_msg("%s, %s: %g is not %g", def->name, SPACING_NAMES[spacing], (double)x[i], p.y[i]);
            diffusion_free(&d);
        }
}

/* What a sampler keeps of [-1,1]: with x0 it clamps what the model says of the clean image, with xt what a step makes.
 */
static void test_clips(void **state)
{
    (void)state;
    for (const SamplerDef *def = SAMPLERS; def->name; def++)
        for (ClipKind clip = CLIP_X0; clip <= CLIP_NONE; clip++) {
            static const int times[] = {900, 600, 300, -1};
            float x[2] = {10, -10};
            Diffusion d;
            Err err;
            Mixture m = {&d};
            const Walk w = {.def = def,
                            .d = &d,
                            .times = times,
                            .steps = 3,
                            .n = 2,
                            .clip = clip,
                            .answer = answer,
                            .noise = noise_of,
                            .ctx = &m};
            check_ok(diffusion_init(&d, SCHEDULE_COSINE, TIMES, PREDICT_EPS, &err), err);
            memset(step_noise, 0, sizeof step_noise);
            walk(x, &w, 0, 1);
            assert_true(clip == CLIP_XT ? x[0] == 1 && x[1] == -1 : x[0] > 1 && x[1] < -1);
            walk(x, &w, 0, 3);
            assert_true(clip == CLIP_NONE || (x[0] <= 1 && x[1] >= -1));
            diffusion_free(&d);
        }
}

/* ---- names, spacings ---- */

static void test_names(void **state)
{
    static const char *const pairs[][2] = {
        {"k_euler", "euler"},      {"EulerDiscreteScheduler", "euler"},
        {"euler_a", "euler-a"},    {"EulerAncestralDiscreteScheduler", "euler-a"},
        {"k_heun", "heun"},        {"HeunDiscreteScheduler", "heun"},
        {"dpmpp_2m", "dpm++2m"},   {"DPMSolverMultistepScheduler", "dpm++2m"},
        {"DDPMScheduler", "ddpm"}, {"DDIMScheduler", "ddim"},
        {"unipc", "unipc"},        {"UniPCMultistepScheduler", "unipc"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++)
        assert_string_equal(sampler_named(pairs[i][0])->name, pairs[i][1]);
    assert_null(sampler_find("plms"));
    assert_null(sampler_find(""));
}

/* By the formulas, with the nearest timestep found by looking at all. */
static int nearest(const Diffusion *d, double log_sigma)
{
    int best = 0;

    for (int t = 1; t < d->timesteps; t++)
        if (fabs(log(1 / d->alphas_cumprod[t] - 1) / 2 - log_sigma) <
            fabs(log(1 / d->alphas_cumprod[best] - 1) / 2 - log_sigma))
            best = t;
    return best;
}

static void spacing_case(ScheduleKind schedule, int steps)
{
    int times[TIMES + 1];
    double max, min;
    Diffusion d;
    Err err;

    check_ok(diffusion_init(&d, schedule, TIMES, PREDICT_V, &err), err);
    min = sqrt(1 / d.alphas_cumprod[0] - 1);
    max = fmin(80, sqrt(1 / d.alphas_cumprod[TIMES - 1] - 1));
    assert_true(diffusion_sigma(&d, 0) > 0 && diffusion_sigma(&d, -1) == 0);
    for (Spacing k = SPACING_TRAILING; k <= SPACING_LOGSNR; k++) {
        diffusion_timesteps(times, &d, steps, k);
        assert_int_equal(times[steps], -1);
        assert_true(times[0] < TIMES);
        for (int s = 0; s < steps; s++) {
            const double part = steps > 1 ? (double)s / (steps - 1) : 0;
            assert_true(times[s] > times[s + 1]);
            if (k == SPACING_TRAILING)
                assert_int_equal(times[s], (steps - s) * TIMES / steps - 1);
            else if (k == SPACING_LEADING)
                assert_int_equal(times[s], (steps - 1 - s) * TIMES / steps);
            else if (steps <= 10)
                assert_int_equal(times[s], nearest(&d, k == SPACING_LOGSNR ? log(max) * (1 - part) + log(min) * part
                                                                           : 7 * log(pow(max, 1.0 / 7) * (1 - part) +
                                                                                     pow(min, 1.0 / 7) * part)));
        }
    }
    diffusion_free(&d);
}

static void test_spacings(void **state)
{
    static const int steps[] = {1, 2, 3, 7, 10, 100, TIMES - 1, TIMES};

    (void)state;
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++)
        for (ScheduleKind schedule = SCHEDULE_LINEAR; schedule <= SCHEDULE_COSINE; schedule++)
            spacing_case(schedule, steps[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_orders), cmocka_unit_test(test_published), cmocka_unit_test(test_clips),
        cmocka_unit_test(test_names),  cmocka_unit_test(test_spacings),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
