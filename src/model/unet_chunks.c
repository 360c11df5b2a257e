/* Many images through networks of fixed size: see model.h. */
#include "sdlora/model.h"

int unet_chunks_build(UnetChunks *c, Model *m, const UnetOptions *o, int chunk, Err *e)
{
    UnetOptions part = *o;

    *c = (UnetChunks){.chunk = chunk < o->n ? chunk : o->n};
    part.n = c->chunk;
    if (unet_build(&c->whole, m, &part, e))
        return -1;
    part.n = o->n % c->chunk;
    return part.n ? unet_build(&c->rest, m, &part, e) : 0;
}

static int measure(size_t *bytes, Model *m, const UnetOptions *o, int n, Err *e)
{
    UnetOptions part = *o;
    Node *loss = NULL;
    Unet u;
    int status;

    part.n = n;
    if (unet_declare(&u, m, &part, e))
        return -1;
    if (o->train)
        loss = op_loss(u.g, u.out, op_input(u.g, u.out->val.shape), o->l1, o->loss_scale);
    status = graph_measure(u.g, loss, e);
    *bytes += graph_bytes(u.g);
    unet_free(&u);
    return status;
}

int unet_chunks_measure(size_t *bytes, Model *m, const UnetOptions *o, int chunk, Err *e)
{
    *bytes = 0;
    if (chunk > o->n)
        chunk = o->n;
    if (measure(bytes, m, o, chunk, e))
        return -1;
    return o->n % chunk ? measure(bytes, m, o, o->n % chunk, e) : 0;
}

Unet *unet_chunks_next(UnetChunks *c, int left)
{
    return left >= c->chunk ? &c->whole : &c->rest;
}

void unet_chunks_free(UnetChunks *c)
{
    unet_free(&c->whole);
    unet_free(&c->rest);
}

size_t unet_chunks_bytes(const UnetChunks *c)
{
    return (c->whole.g ? graph_bytes(c->whole.g) : 0) + (c->rest.g ? graph_bytes(c->rest.g) : 0);
}

void unet_chunks_weights_changed(UnetChunks *c)
{
    if (c->whole.g)
        graph_weights_changed(c->whole.g);
    if (c->rest.g)
        graph_weights_changed(c->rest.g);
}
