/* Noise schedules and steps: see diffusion.h for the formulas. All coefficients in double, applied in float. */
#include "sdlora/diffusion.h"

#include <math.h>

#include "sdlora/mem.h"

const char *const SCHEDULE_NAMES[] = {"linear", "cosine", NULL};
const char *const PREDICT_NAMES[] = {"eps", "v", "x0", NULL};
const char *const CLIP_NAMES[] = {"x0", "xt", "none", NULL};
const char *const SPACING_NAMES[] = {"trailing", "leading", "karras", "logsnr", NULL};

static double cosine_f(double t, int timesteps)
{
    double c = cos((t / timesteps + 0.008) / 1.008 * 1.5707963267948966);
    return c * c;
}

int diffusion_init(Diffusion *d, ScheduleKind schedule, int timesteps, PredictKind predict, Err *e)
{
    double product = 1;

    *d = (Diffusion){timesteps, predict, NULL, NULL};
    if (timesteps < TIMESTEPS_MIN || timesteps > TIMESTEPS_MAX)
        return err_set(e, ERR_USAGE, "the number of timesteps must be %d to %d, not %d", TIMESTEPS_MIN, TIMESTEPS_MAX,
                       timesteps);
    d->betas = mem_alloc((size_t)timesteps, sizeof(double), "the noise levels", e);
    d->alphas_cumprod = mem_alloc((size_t)timesteps, sizeof(double), "the noise levels", e);
    if (!d->betas || !d->alphas_cumprod) {
        diffusion_free(d);
        return -1;
    }
    for (int t = 0; t < timesteps; t++) {
        double beta = schedule == SCHEDULE_LINEAR
                          ? 1e-4 + (0.02 - 1e-4) * t / (timesteps - 1)
                          : fmin(1 - cosine_f(t + 1, timesteps) / cosine_f(t, timesteps), 0.999);
        product *= 1 - beta;
        d->betas[t] = beta;
        d->alphas_cumprod[t] = product;
    }
    return 0;
}

void diffusion_free(Diffusion *d)
{
    mem_free(d->betas);
    mem_free(d->alphas_cumprod);
    d->betas = d->alphas_cumprod = NULL;
}

void diffusion_noise(real *xt, real *target, const float *x0, const float *eps, int t, size_t n, const Diffusion *d)
{
    real a = (real)sqrt(d->alphas_cumprod[t]), s = (real)sqrt(1 - d->alphas_cumprod[t]);

    for (size_t i = 0; i < n; i++)
        xt[i] = a * (real)x0[i] + s * (real)eps[i];
    for (size_t i = 0; target && i < n; i++)
        target[i] = d->predict == PREDICT_EPS ? (real)eps[i]
                    : d->predict == PREDICT_V ? a * (real)eps[i] - s * (real)x0[i]
                                              : (real)x0[i];
}

int diffusion_timestep(const Diffusion *d, double u)
{
    int low = 0, high = d->timesteps - 1;

    while (low < high) {
        const int middle = (low + high) / 2;
        if (d->alphas_cumprod[middle] <= 1 - u)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

static float clamp1(float x)
{
    return x < -1 ? -1 : x > 1 ? 1 : x; /* NaN stays NaN */
}

/* What the model's output says of the clean image: x0 = cx x_t + co output. */
static void x0_coefficients(double *cx, double *co, int t, const Diffusion *d)
{
    double a = sqrt(d->alphas_cumprod[t]), s = sqrt(1 - d->alphas_cumprod[t]);
    *cx = d->predict == PREDICT_EPS ? 1 / a : d->predict == PREDICT_V ? a : 0;
    *co = d->predict == PREDICT_EPS ? -s / a : d->predict == PREDICT_V ? -s : 1;
}

void diffusion_x0(float *x0, const float *x, const real *output, int t, size_t n, ClipKind clip, const Diffusion *d)
{
    double cx, co;

    x0_coefficients(&cx, &co, t, d);
    for (size_t i = 0; i < n; i++) {
        x0[i] = (float)(cx * (double)x[i] + co * (double)output[i]);
        if (clip == CLIP_X0)
            x0[i] = clamp1(x0[i]);
    }
}

/* x = cx x + c0 x0 + cn noise, with x0 predicted from x and output. */
static void reverse(float *x, const real *output, const float *noise, int t, double cx, double c0, double cn, size_t n,
                    ClipKind clip, const Diffusion *d)
{
    double px, po;

    x0_coefficients(&px, &po, t, d);
    for (size_t i = 0; i < n; i++) {
        double x0 = px * (double)x[i] + po * (double)output[i];
        double y;
        if (clip == CLIP_X0)
            x0 = x0 < -1 ? -1 : x0 > 1 ? 1 : x0;
        y = cx * (double)x[i] + c0 * x0;
        if (cn != 0)
            y += cn * (double)noise[i];
        x[i] = clip == CLIP_XT ? clamp1((float)y) : (float)y;
    }
}

void diffusion_ddpm_step(float *x, const real *output, const float *noise, int t, int t_prev, size_t n, ClipKind clip,
                         const Diffusion *d)
{
    double ac = d->alphas_cumprod[t], prev = t_prev >= 0 ? d->alphas_cumprod[t_prev] : 1;
    double beta = t_prev == t - 1 ? d->betas[t] : 1 - ac / prev;
    double variance = beta * (1 - prev) / (1 - ac);

    reverse(x, output, noise, t, sqrt(1 - beta) * (1 - prev) / (1 - ac), sqrt(prev) * beta / (1 - ac),
            t_prev >= 0 ? sqrt(variance) : 0, n, clip, d);
}

void diffusion_ddim_step(float *x, const real *output, const float *noise, int t, int t_prev, double eta, size_t n,
                         ClipKind clip, const Diffusion *d)
{
    double ac = d->alphas_cumprod[t], prev = t_prev >= 0 ? d->alphas_cumprod[t_prev] : 1;
    double sigma = t_prev >= 0 ? eta * sqrt((1 - prev) / (1 - ac)) * sqrt(fmax(0, 1 - ac / prev)) : 0;
    double direction = sqrt(fmax(0, 1 - prev - sigma * sigma)); /* multiplies eps = (x_t - sqrt(ac) x0) / sqrt(1-ac) */
    double cx = direction / sqrt(1 - ac);

    reverse(x, output, noise, t, cx, sqrt(prev) - cx * sqrt(ac), sigma, n, clip, d);
}

/* ---- which timesteps ---- */

double diffusion_sigma(const Diffusion *d, int t)
{
    return t < 0 ? 0 : sqrt((1 - d->alphas_cumprod[t]) / d->alphas_cumprod[t]);
}

/* The timestep whose log sigma is nearest. */
static int timestep_of(double log_sigma, const Diffusion *d)
{
    int low = 0, high = d->timesteps - 1;

    while (high - low > 1) {
        int middle = (low + high) / 2;
        if (log(diffusion_sigma(d, middle)) < log_sigma)
            low = middle;
        else
            high = middle;
    }
    return log_sigma - log(diffusion_sigma(d, low)) < log(diffusion_sigma(d, high)) - log_sigma ? low : high;
}

static int by_sigma(double part, const Diffusion *d, Spacing spacing)
{
    const double sigma_max = 80, rho = 7;
    double max = fmin(diffusion_sigma(d, d->timesteps - 1), sigma_max), min = fmin(diffusion_sigma(d, 0), max);

    if (spacing == SPACING_LOGSNR)
        return timestep_of(log(max) + part * (log(min) - log(max)), d);
    max = pow(max, 1 / rho);
    min = pow(min, 1 / rho);
    return timestep_of(rho * log(max + part * (min - max)), d);
}

void diffusion_timesteps(int *t, const Diffusion *d, int steps, Spacing spacing)
{
    const int64_t all = d->timesteps;

    t[steps] = -1;
    for (int s = 0; s < steps; s++)
        t[s] = spacing == SPACING_TRAILING  ? (int)((steps - s) * all / steps) - 1
               : spacing == SPACING_LEADING ? (int)((steps - 1 - s) * all / steps)
                                            : by_sigma(steps > 1 ? (double)s / (steps - 1) : 0, d, spacing);
    for (int s = steps - 1; s >= 0; s--) /* noise levels that are nearer than timesteps are */
        t[s] = t[s] > t[s + 1] ? t[s] : t[s + 1] + 1;
    for (int s = 0; s < steps; s++)
        t[s] = t[s] < d->timesteps - 1 - s ? t[s] : d->timesteps - 1 - s;
}
