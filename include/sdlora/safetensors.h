/* safetensors files: u64 LE header length N | N bytes of JSON | data to the end of the file. The reader validates
 * everything before it allocates anything by a number out of the file, as a strict subset of the reference reader:
 * besides what that one rejects it also rejects duplicate names, tensors given as arrays, leading white space, more
 * than 8 dimensions, empty names, NUL in names or metadata, and headers of more than 2 million values. It accepts
 * offsets in any order, unaligned data, tensors without elements, unknown extra fields. */
#ifndef SDLORA_SAFETENSORS_H
#define SDLORA_SAFETENSORS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "sdlora/err.h"

#define ST_MAX_DIMS   8
#define ST_MAX_HEADER 100000000u

typedef enum DType { /* the first three are what this program writes, F16, BF16 and F64 it can also read */
                     DT_F32,
                     DT_I64,
                     DT_U8,
                     DT_F16,
                     DT_BF16,
                     DT_F64,
                     DT_BOOL,
                     DT_I8,
                     DT_I16,
                     DT_U16,
                     DT_I32,
                     DT_U32,
                     DT_U64,
                     DT_F8_E5M2,
                     DT_F8_E4M3,
                     DT_F8_E8M0,
                     DT_F8_E4M3FNUZ,
                     DT_F8_E5M2FNUZ,
                     DT_F4,
                     DT_F6_E2M3,
                     DT_F6_E3M2,
                     DT_C64,
                     DT_COUNT
} DType;

const char *dtype_name(DType t); /* "F32" */
int dtype_bits(DType t);
/* n floats into F16 or BF16 (out: n numbers of 2 bytes), to the nearest, ties to even. False where a finite one would
 * become infinite. */
bool dtype_round(void *out, DType t, const float *in, size_t n);

typedef struct StTensor {
    const char *name;
    DType dtype;
    int nd;
    uint64_t d[ST_MAX_DIMS];
    size_t numel, bytes;
    const unsigned char *data; /* may be unaligned: use the readers below */
} StTensor;

typedef struct StFile StFile;

/* Open and validate: the length first, then the header, and only when all tensors have their place the data, which is
 * held in memory until st_close. NULL with *e (ERR_INPUT) that names the file, and the tensor and byte numbers where
 * there is one. */
StFile *st_open(const char *path, Err *e);
/* The same of the header alone: there is no data to be read (StTensor.data is NULL), and no SHA-256. */
StFile *st_open_header(const char *path, Err *e);
/* The same over bytes in memory; `label` stands for the path in messages. */
StFile *st_parse(const void *bytes, size_t size, const char *label, Err *e);
/* SHA-256 of the file as it was read. */
void st_sha256(char hex[65], const StFile *f);
void st_close(StFile *f); /* NULL is allowed */

int st_count(const StFile *f);
const StTensor *st_at(const StFile *f, int i); /* by increasing offset; with it, names live until st_close */
const StTensor *st_find(const StFile *f, const char *name); /* NULL: not there */
int st_meta_count(const StFile *f);
void st_meta_at(const StFile *f, int i, const char **key, const char **value);
const char *st_meta(const StFile *f, const char *key); /* NULL: not there */
const char *st_label(const StFile *f);

/* All elements into out (numel): float from F32, F16, BF16, F64; int64 from I64 and the narrower integer types. Errors
 * (ERR_INPUT) for other dtypes, naming file and tensor. F64 beyond a float becomes infinity. */
int st_read_f32(float *out, const StFile *f, const StTensor *t, Err *e);
int st_read_i64(int64_t *out, const StFile *f, const StTensor *t, Err *e);

/* Writing. Tensors are sorted by dtype as the reference writer does (the widest first), then by name, metadata by key;
 * the header is padded with spaces to a multiple of 8; {"format":"pt"} is always there, so that key cannot be added.
 * Same content, same bytes. Names, values and data are borrowed until st_save; d is copied. The adders return -1
 * (ERR_FAILED) when there is no memory, on a duplicate or empty name, or for an impossible shape. */
typedef struct StWriter StWriter;

StWriter *st_writer(Err *e);
int st_add_meta(StWriter *w, const char *key, const char *value, Err *e);
int st_add(StWriter *w, const char *name, DType dtype, int nd, const int *d, const void *data, Err *e);
/* A tensor whose data st_save makes when their turn has come, so that no more than one lies in memory: make fills the
 * bytes that it takes. ctx is borrowed too. */
typedef void StMake(void *data, const void *ctx);
int st_add_made(StWriter *w, const char *name, DType dtype, int nd, const int *d, StMake *make, const void *ctx,
                Err *e);
int st_save(const StWriter *w, const char *path, Err *e); /* atomic, see file.h */
void st_writer_free(StWriter *w);

#endif
