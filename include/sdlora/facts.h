/* Where a model or an adapter comes from: kept beside its weights and in its file, for people and for warnings. */
#ifndef SDLORA_FACTS_H
#define SDLORA_FACTS_H

#include <math.h>
#include <stdint.h>

typedef struct Facts {
    char data_name[128], data_sha256[65]; /* the images that it was trained on; "": not said, as all texts */
    int64_t steps;                        /* 0: not said */
    double val_loss;                      /* NaN: not measured */
    /* of an adapter */
    char base_name[128], base_sha256[65]; /* the model that it was trained for */
    double base_val_loss;                 /* that model's, on the same images */
    int classes;                          /* of the model with it; 0: not said */
} Facts;

#define FACTS_NONE ((Facts){.val_loss = (double)NAN, .base_val_loss = (double)NAN})

#endif
