/* libFuzzer target: any bytes as the configuration of a model, and as that of an adapter. What is accepted must be a
 * model that can be described again, and read from that description to the same values. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "sdlora/mem.h"
#include "sdlora/store.h"
#include "sdlora/train.h"

#include "../../src/store/lora_config.h"

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

static void read_adapter(const char *text)
{
    Err e = {ERR_NONE, ""};
    AdapterConfig c;

    if (lora_config_read(&c, text, "input", &e))
        refused(&e);
    else
        require((c.alpha - c.alpha == 0 || c.alpha != c.alpha) && c.rank >= 0 && c.rank <= LORA_RANK_MAX);
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
