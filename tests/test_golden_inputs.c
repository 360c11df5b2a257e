/* What goes into the network, against PyTorch (tests/golden/ops.safetensors): time features, resized images. */
#include "golden_util.h"

#include "sdlora/data.h"
#include "sdlora/image.h"

static void time_case(int dim)
{
    ModelConfig config = model_preset(PRESET_TINY);
    UnetOptions o = {.n = 7, .h = 4, .w = 4};
    StFile *f = golden_open("ops");
    char name[32];
    float *freq, *want;
    int *t;
    Model *m;
    Unet u;
    Err err;

    memcpy(config.channels, (int[]){2, 2, 2}, 3 * sizeof(int));
    config.time_dim = dim;
    m = model_new(&config, false, 1, &err);
    check_ptr(m, err);
    check_ok(unet_build(&u, m, &o, &err), err);
    snprintf(name, sizeof name, "time_%d.freq", dim);
    freq = golden_f32(f, name);
    for (int i = 0; i < dim / 2; i++) /* two roundings, of the exponent (at most 9.2) and of exp */
        check_close(param_find(m->params, "time_embedding.0.half_embedding")->value[i], freq[i], 0, 1e-6, name);
    /* one unit in the last place of a frequency is 1e-4 in the angle: from here on with PyTorch's */
    memcpy(param_find(m->params, "time_embedding.0.half_embedding")->value, freq, (size_t)dim / 2 * sizeof *freq);
    snprintf(name, sizeof name, "time_%d.t", dim);
    t = golden_ints(f, name);
    snprintf(name, sizeof name, "time_%d.y", dim);
    want = golden_f32(f, name);
    unet_set_time(&u, t);
    check_array(u.time->val.data, want, 7 * (size_t)dim, 1e-6, 0, name);
    free(freq);
    free(want);
    free(t);
    unet_free(&u);
    model_free(m);
    st_close(f);
}

static void test_time_features(void **state)
{
    (void)state;
    time_case(256);
    time_case(10);
}

static void test_resize_is_bilinear(void **state)
{
    StFile *f = golden_open("ops");
    float *x = golden_f32(f, "bilinear.x"), *y = golden_f32(f, "bilinear.y");
    uint8_t in[28 * 28], out[48 * 48];
    Err err;

    (void)state;
    for (int i = 0; i < 28 * 28; i++)
        in[i] = (uint8_t)x[i];
    check_ok(resize_bilinear(out, 48, 48, in, 28, 28, &err), err);
    for (int i = 0; i < 48 * 48; i++) /* rounded twice, once in each direction */
        check_close(out[i], y[i], 1.0001, 0, "pixel");
    free(x);
    free(y);
    st_close(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_time_features),
        cmocka_unit_test(test_resize_is_bilinear),
    };
    return cmocka_run_group_tests(tests, start, NULL);
}
