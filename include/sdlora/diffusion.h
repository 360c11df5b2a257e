/* Diffusion: noise schedules, forward noising, prediction targets, reverse steps.
 * x_t = sqrt(ac_t) x_0 + sqrt(1-ac_t) eps, ac = alphas_cumprod (Ho, Jain & Abbeel 2020, eq. 4). t is 0..T-1; images
 * are flat float arrays in [-1,1]. */
#ifndef SDLORA_DIFFUSION_H
#define SDLORA_DIFFUSION_H

#include <stddef.h>
#include <stdint.h>

#include "sdlora/err.h"
#include "sdlora/tensor.h"

typedef enum ScheduleKind { SCHEDULE_LINEAR, SCHEDULE_COSINE } ScheduleKind;
typedef enum PredictKind { PREDICT_EPS, PREDICT_V, PREDICT_X0 } PredictKind;
typedef enum ClipKind { CLIP_X0, CLIP_XT, CLIP_NONE } ClipKind;
typedef enum Spacing { SPACING_TRAILING, SPACING_LEADING, SPACING_KARRAS, SPACING_LOGSNR } Spacing;
extern const char *const SCHEDULE_NAMES[], *const PREDICT_NAMES[], *const CLIP_NAMES[], *const SPACING_NAMES[];

#define TIMESTEPS_MIN 2
#define TIMESTEPS_MAX 100000

typedef struct Diffusion {
    int timesteps;
    PredictKind predict;
    double *betas;          /* (T) */
    double *alphas_cumprod; /* (T): prod_{s<=t} (1-beta_s) */
} Diffusion;

/* linear: beta from 1e-4 to 0.02 in T equal steps. cosine (Nichol & Dhariwal 2021, eq. 17): ac_t = f(t+1)/f(0),
 * f(t) = cos^2((t/T + 0.008)/1.008 * pi/2), beta clipped at 0.999. timesteps TIMESTEPS_MIN..TIMESTEPS_MAX. */
int diffusion_init(Diffusion *d, ScheduleKind schedule, int timesteps, PredictKind predict, Err *e);
void diffusion_free(Diffusion *d);

/* xt = sqrt(ac_t) x0 + sqrt(1-ac_t) eps, and target = eps, v = sqrt(ac_t) eps - sqrt(1-ac_t) x0 (Salimans & Ho 2022,
 * eq. 11), or x0, for one image of n values. target may be NULL. */
void diffusion_noise(real *xt, real *target, const float *x0, const float *eps, int t, size_t n, const Diffusion *d);

/* The t with alphas_cumprod_t <= 1 - u < alphas_cumprod_(t-1), u in [0,1): with an even u, t has the probability by
 * which alphas_cumprod falls there, so that the middle of the process, where picture and noise are mixed, comes most
 * often: with the cosine schedule by the density pi/2 sin(pi t/T). */
int diffusion_timestep(const Diffusion *d, double u);

/* x0 (n): what the model's output at t says of the clean image, given x_t; clip X0 clamps it to [-1,1]. */
void diffusion_x0(float *x0, const float *x, const real *output, int t, size_t n, ClipKind clip, const Diffusion *d);

/* One reverse step of one image, in place: x (n) from x_t to x_prev given the model's output at t. `noise` N(0,1) (n),
 * unused (may be NULL) where the step adds none.
 * DDPM: the posterior mean and variance of q(x_{t_prev} | x_t, x_0) (Ho et al., eq. 6, 7, with 1 - ac_t/ac_p for beta_t
 * where steps are left out: Nichol & Dhariwal 2021, eq. 19); no noise in the step to the clean image.
 * DDIM (Song et al. 2021, eq. 12): from t to t_prev (-1: the clean image), sigma = eta sqrt((1-ac_p)/(1-ac_t))
 * sqrt(1-ac_t/ac_p).
 * clip X0 clamps the predicted x0 to [-1,1] (and eps follows it); XT clamps the result instead, as the reference does.
 */
void diffusion_ddpm_step(float *x, const real *output, const float *noise, int t, int t_prev, size_t n, ClipKind clip,
                         const Diffusion *d);
void diffusion_ddim_step(float *x, const real *output, const float *noise, int t, int t_prev, double eta, size_t n,
                         ClipKind clip, const Diffusion *d);

/* How much noise there is for the picture: sigma = sqrt((1-ac_t)/ac_t), that of x_t / sqrt(ac_t) = x_0 + sigma eps
 * (Karras et al. 2022); 0 for t = -1. */
double diffusion_sigma(const Diffusion *d, int t);

/* t (steps + 1): the timesteps of so many steps, 1..T, from the noisiest on, no two the same; t[steps] is -1, the clean
 * image. For s = 0..steps-1:
 * trailing: floor((steps-s) T / steps) - 1 (Lin et al. 2024, table 2): begins with T-1, all noise.
 * leading: floor((steps-1-s) T / steps) (Song et al. 2021, D.3): ends with 0, and begins with some of the picture left.
 * karras: sigma_s = (max^(1/7) + s/(steps-1) (min^(1/7) - max^(1/7)))^7 (Karras et al. 2022, eq. 5).
 * logsnr: log sigma_s = log max + s/(steps-1) (log min - log max) (Lu et al. 2022, section 3.3).
 * The last two take the timestep whose log sigma is nearest; min is sigma of timestep 0, and max that of T-1, but at
 * most 80 (Karras et al.'s): a cosine schedule ends far above, where nothing is seen yet. One step begins at max. */
void diffusion_timesteps(int *t, const Diffusion *d, int steps, Spacing spacing);

#endif
