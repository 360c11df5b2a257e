/* What a model's configuration consists of: its fields with their ranges, its presets. See model.h. */
#include "sdlora/model.h"

static const char *const sublayer_norm_names[] = {"post", "pre", NULL};

#define WIDTH .min = 1, .max = 4096

/* clang-format off */
const Field MODEL_FIELDS[] = {
    [MODEL_CHANNELS] = {FIELD_INTS, "channels", FIELD(ModelConfig, channels), .limit = MODEL_MAX_LEVELS,
        .count_offset = offsetof(ModelConfig, levels), .min = 1, .max = 16384,
        .what = "the number of channels", .help = "channels per resolution, finest first"},
    [MODEL_IMAGE_SIZE] = {FIELD_INT, "image_size", FIELD(ModelConfig, image_size), .min = 1, .max = 1024,
        .what = "the image size", .help = "images are resized to this"},
    [MODEL_IN_CHANNELS] = {FIELD_INT, "in_channels", FIELD(ModelConfig, in_channels), .min = 1, .max = 64,
        .what = "the number of an image's channels", .help = "channels of an image: 1 is grey"},
    [MODEL_TIME_DIM] = {FIELD_INT, "time_dim", FIELD(ModelConfig, time_dim), .min = 4, .max = 4096,
        .what = "the time embedding's width", .help = "width of the time embedding, even"},
    [MODEL_QSIZE] = {FIELD_INT, "qsize", FIELD(ModelConfig, qsize), WIDTH,
        .what = "the width of queries and keys", .help = "cross-attention: width of queries and keys"},
    [MODEL_VSIZE] = {FIELD_INT, "vsize", FIELD(ModelConfig, vsize), WIDTH,
        .what = "the width of values", .help = "cross-attention: width of values"},
    [MODEL_FSIZE] = {FIELD_INT, "fsize", FIELD(ModelConfig, fsize), .min = 1, .max = 65536,
        .what = "the width of the feed-forward layer", .help = "cross-attention: width of the feed-forward part"},
    [MODEL_CONTEXT_TOKENS] = {FIELD_INT, "context_tokens", FIELD(ModelConfig, context_tokens), .min = 1, .max = 256,
        .what = "the number of context tokens", .help = "tokens of each class"},
    [MODEL_CONTEXT_DIM] = {FIELD_INT, "context_dim", FIELD(ModelConfig, context_dim), WIDTH,
        .what = "the width of a context token", .help = "width of a token"},
    [MODEL_CLASSES] = {FIELD_INT, "classes", FIELD(ModelConfig, classes), .min = 1, .max = 256,
        .what = "the number of classes", .help = "as many as the labels have"},
    [MODEL_NULL_CLASS] = {FIELD_BOOL, "null_class", FIELD(ModelConfig, null_class),
        .what = "the null class", .help = "a class for 'no class', which guidance needs; follows the class dropout"},
    [MODEL_NORM] = {FIELD_ENUM, "norm", FIELD(ModelConfig, norm), .names = NORM_NAMES,
        .what = "the normalisation", .help = "normalisation after convolutions"},
    [MODEL_GROUPS] = {FIELD_INT, "groups", FIELD(ModelConfig, groups), .min = 1, .max = 65536,
        .what = "the number of groups", .help = "groups of group normalisation"},
    [MODEL_ACT] = {FIELD_ENUM, "act", FIELD(ModelConfig, act), .min = ACT_RELU, .names = ACT_NAMES,
        .what = "the activation", .help = "activation"},
    [MODEL_TIME_ACT] = {FIELD_BOOL, "time_act", FIELD(ModelConfig, time_act),
        .what = "the time layers' activation", .help = "activation after each block's time layer"},
    [MODEL_SKIP] = {FIELD_BOOL, "skip", FIELD(ModelConfig, skip),
        .what = "the blocks' residual", .help = "residual around each block"},
    [MODEL_PRE_NORM] = {FIELD_BOOL, "pre_norm", FIELD(ModelConfig, pre_norm), .names = sublayer_norm_names,
        .what = "the place of LayerNorm", .help = "LayerNorm before attention and feed-forward, or after the sum"},
    [MODEL_TIMESTEPS] = {FIELD_INT, "timesteps", FIELD(ModelConfig, timesteps), .min = TIMESTEPS_MIN,
        .max = TIMESTEPS_MAX, .what = "the number of timesteps", .help = "steps of the noising process"},
    [MODEL_SCHEDULE] = {FIELD_ENUM, "schedule", FIELD(ModelConfig, schedule), .names = SCHEDULE_NAMES,
        .what = "the noise schedule", .help = "noise schedule"},
    [MODEL_PREDICT] = {FIELD_ENUM, "predict", FIELD(ModelConfig, predict), .names = PREDICT_NAMES,
        .what = "the prediction", .help = "what the network predicts"},
    [MODEL_CLIP] = {FIELD_ENUM, "clip", FIELD(ModelConfig, clip), .names = CLIP_NAMES,
        .what = "the clipping", .help = "what sampling clamps to [-1,1]: the predicted image, x_t, nothing"},
    {0},
};

const char *const PRESET_NAMES[] = {"mnist", "tiny", "photo", "seed", NULL};

static const ModelConfig presets[] = {
    [PRESET_MNIST] = {
        .channels = {32, 64, 128}, .levels = 3, .image_size = 28, .in_channels = 1, .time_dim = 256, .qsize = 16,
        .vsize = 16, .fsize = 32, .context_tokens = 4, .context_dim = 32, .classes = 10, .null_class = true, .norm = NORM_GROUP,
        .groups = 8, .act = ACT_SILU, .time_act = false, .skip = true, .pre_norm = true,
        .timesteps = 1000, .schedule = SCHEDULE_COSINE, .predict = PREDICT_V, .clip = CLIP_X0,
    },
    [PRESET_TINY] = {
        .channels = {16, 32, 64}, .levels = 3, .image_size = 28, .in_channels = 1, .time_dim = 256, .qsize = 16,
        .vsize = 16, .fsize = 32, .context_tokens = 4, .context_dim = 32, .classes = 10, .null_class = true, .norm = NORM_GROUP,
        .groups = 8, .act = ACT_SILU, .time_act = false, .skip = true, .pre_norm = true,
        .timesteps = 1000, .schedule = SCHEDULE_COSINE, .predict = PREDICT_V, .clip = CLIP_X0,
    },
    [PRESET_PHOTO] = {
        .channels = {32, 64, 128, 128}, .levels = 4, .image_size = 32, .in_channels = 3, .time_dim = 256, .qsize = 16,
        .vsize = 16, .fsize = 32, .context_tokens = 4, .context_dim = 32, .classes = 10, .null_class = true, .norm = NORM_GROUP,
        .groups = 8, .act = ACT_SILU, .time_act = false, .skip = true, .pre_norm = true,
        .timesteps = 1000, .schedule = SCHEDULE_COSINE, .predict = PREDICT_V, .clip = CLIP_X0,
    },
    [PRESET_SEED] = {
        .channels = {64, 128, 256, 512, 1024}, .levels = 5, .image_size = 48, .in_channels = 1, .time_dim = 256,
        .qsize = 16, .vsize = 16, .fsize = 32, .context_tokens = 1, .context_dim = 32, .classes = 10, .null_class = false, .norm = NORM_BATCH,
        .groups = 8, .act = ACT_RELU, .time_act = true, .skip = false, .pre_norm = false,
        .timesteps = 1500, .schedule = SCHEDULE_LINEAR, .predict = PREDICT_EPS, .clip = CLIP_XT,
    },
};
/* clang-format on */

ModelConfig model_preset(Preset p)
{
    return presets[p];
}

int model_config_check(const ModelConfig *c, Err *e)
{
    int step;

    if (fields_check(c, MODEL_FIELDS, e))
        return -1;
    if (c->time_dim % 2)
        return err_set(e, ERR_USAGE, "the time embedding's width must be even, not %d", c->time_dim);
    step = 1 << (c->levels - 1);
    if (c->image_size % step)
        return err_set(e, ERR_USAGE, "the image size %d must be a multiple of %d for %d resolutions; the nearest is %d",
                       c->image_size, step, c->levels, (c->image_size + step - 1) / step * step);
    return 0;
}
