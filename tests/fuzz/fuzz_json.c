/* libFuzzer target: any bytes as the configuration of a model, and as that of an adapter. What is accepted must be a
 * model that can be described again, and read from that description to the same values. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "sdlora/mem.h"
#include "sdlora/store.h"
#include "sdlora/train.h"

#include "../../src/store/peft_config.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

static void require(int ok)
{
    if (!ok)
        abort();
}

static void refused(const Err *e)
{
    require(e->code == ERR_INPUT && e->msg[0] && strlen(e->msg) < sizeof e->msg);
}

static void read_model(const char *text)
{
    ModelConfig c = model_preset(PRESET_MNIST), again = model_preset(PRESET_SEED);
    Err e = {ERR_NONE, ""};
    char *json, list[600];

    if (model_config_from_json(&c, text, "input", &e)) {
        refused(&e);
        return;
    }
    require(!model_config_check(&c, &e));
    json = model_config_json(&c, &e);
    require(json && !model_config_from_json(&again, json, "again", &e));
    require(fields_diff(list, sizeof list, MODEL_FIELDS, &c, &again) == 0);
    mem_free(json);
}

/* What it says of a layer: a rank in its range, an answer, or a refusal. */
static void ask(PeftConfig *c, const char *layer)
{
    Err e = {ERR_NONE, ""};
    const char *field;
    double alpha;
    int rank;

    c->budget = 20000;
    if (peft_config_layer(&rank, &alpha, c, layer, &e) || peft_config_adapts(&field, c, layer, true, &e))
        refused(&e);
    else
        require(rank >= 0 && rank <= ADAPTER_RANK_MAX && (alpha - alpha == 0 || alpha != alpha));
    peft_config_saves(c, layer);
    peft_config_tokens(c, layer);
}

static void read_adapter(const char *text)
{
    Err e = {ERR_NONE, ""};
    PeftConfig c;

    if (peft_config_read(&c, text, "input", &e)) {
        refused(&e);
    } else {
        ask(&c, "encoder_convs.0.cross_attention.w_q");
        ask(&c, "class_embedding");
    }
    peft_config_free(&c);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    char *text = malloc(size + 1);

    require(text != NULL);
    memcpy(text, bytes, size);
    text[size] = '\0';
    read_model(text);
    read_adapter(text);
    free(text);
    return 0;
}
