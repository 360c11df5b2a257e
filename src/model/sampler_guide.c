/* Guidance: see sampler.h. The network runs twice on the same images, for the null class and for their own. Not once on
 * a doubled batch: its activations would leave the cache, and the null half of a small batch would have to begin at a
 * whole group (backend.h), 16 images instead of 2 for one image. */
#include <math.h>
#include <string.h>

#include "sampler_private.h"

bool sampler_guides(const Chunk *k, int t)
{
    const double sigma = diffusion_sigma(k->d, t);
    return k->uncond && sigma > k->c->cfg_low && sigma <= k->c->cfg_high;
}

void sampler_set_classes(const Chunk *k, bool negative)
{
    const SampleMix *mix = k->c->mix;
    Unet *u = k->u;

    for (int i = 0; i < k->n; i++)
        u->y[i] = negative ? sample_negative(k->c, &u->model->config) : k->classes[i];
    for (int i = 0; mix && i < k->n; i++) {
        u->to[i] = mix->to ? mix->to[k->first + i] : u->y[i];
        u->part[i] = negative || !mix->to ? 0 : mix->part[k->first + i];
    }
}

static double deviation(const real *v, size_t n)
{
    double sum = 0, squares = 0, mean;

    for (size_t i = 0; i < n; i++)
        sum += (double)v[i];
    mean = sum / (double)n;
    for (size_t i = 0; i < n; i++)
        squares += ((double)v[i] - mean) * ((double)v[i] - mean);
    return sqrt(squares / (double)n);
}

/* One image's answer, from its own class's */
static void guide(real *out, const real *uncond, size_t n, const SampleConfig *c)
{
    const real scale = (real)c->cfg_scale;
    const double own = c->cfg_rescale > 0 ? deviation(out, n) : 0;
    double guided;

    for (size_t i = 0; i < n; i++)
        out[i] = uncond[i] + scale * (out[i] - uncond[i]);
    if (c->cfg_rescale > 0 && (guided = deviation(out, n)) > 0)
        for (size_t i = 0; i < n; i++)
            out[i] *= (real)(1 - c->cfg_rescale + c->cfg_rescale * own / guided);
}

void sampler_ask(const Chunk *k, int s)
{
    const Unet *u = k->u;
    const size_t values = (size_t)k->n * k->values;
    const bool guided = sampler_guides(k, k->times[s]);
    real *x = u->x->val.data, *out = u->out->val.data;

    for (int i = 0; i < k->n; i++)
        u->step[i] = s;
    for (size_t i = 0; i < values; i++)
        x[i] = (real)k->x[i];
    if (guided) {
        sampler_set_classes(k, true);
        graph_forward(u->g);
        memcpy(k->uncond, out, values * sizeof *out);
    }
    sampler_set_classes(k, false);
    graph_forward(u->g);
    for (int i = 0; guided && i < k->n; i++)
        guide(out + (size_t)i * k->values, k->uncond + (size_t)i * k->values, k->values, k->c);
}
