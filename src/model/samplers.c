/* The table of samplers: see sampler.h. Another one is a function and a row. */
#include "sdlora/sampler.h"

static void ddpm_step(const SamplerStep *s)
{
    diffusion_ddpm_step(s->x, s->out, s->noise, s->t, s->n, s->clip, s->d);
}

static void ddim_step(const SamplerStep *s)
{
    diffusion_ddim_step(s->x, s->out, s->noise, s->t, s->t_prev, s->eta, s->n, s->clip, s->d);
}

const SamplerDef SAMPLERS[] = {
    [SAMPLER_DDPM] = {.name = "ddpm", .all_steps = true, .noise = true, .step = ddpm_step},
    [SAMPLER_DDIM] = {.name = "ddim", .noise = true, .uses_eta = true, .step = ddim_step},
    {.name = NULL},
};
