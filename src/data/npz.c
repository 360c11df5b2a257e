/* .npz archives by libzip, see npz.h. */
#include "npz.h"

#include <string.h>
#include <zip.h>

#include "sdlora/file.h"
#include "sdlora/mem.h"

struct Npz {
    zip_t *zip;
    char *label;
};

/* Takes over `source`. */
static Npz *open_source(zip_source_t *source, const char *label, zip_error_t *why, Err *e)
{
    Npz *z = mem_alloc(1, sizeof *z, "an archive", e);

    if (z && !(z->label = mem_strdup(label, e))) {
        mem_free(z);
        z = NULL;
    }
    if (z && source)
        z->zip = zip_open_from_source(source, ZIP_RDONLY, why);
    if (z && !z->zip) {
        err_set(e, ERR_INPUT, "'%s' is no zip archive that can be read: %s", label, zip_error_strerror(why));
        npz_close(z);
        z = NULL;
    }
    if (!z && source)
        zip_source_free(source);
    return z;
}

Npz *npz_open(const char *path, Err *e)
{
    FileIn *f = file_open(path, e); /* libzip would wait for a pipe */
    zip_error_t why;
    Npz *z;

    if (!f)
        return NULL;
    file_close(f);
    zip_error_init(&why);
    z = open_source(zip_source_file_create(path, 0, -1, &why), path, &why, e);
    zip_error_fini(&why);
    return z;
}

Npz *npz_open_bytes(const void *bytes, size_t n, const char *label, Err *e)
{
    zip_error_t why;
    Npz *z;

    zip_error_init(&why);
    z = open_source(zip_source_buffer_create(bytes, n, 0, &why), label, &why, e);
    zip_error_fini(&why);
    return z;
}

void npz_close(Npz *z)
{
    if (!z)
        return;
    if (z->zip)
        zip_discard(z->zip);
    mem_free(z->label);
    mem_free(z);
}

/* -1: there is none */
static zip_int64_t locate(const Npz *z, const char *array)
{
    char *name = mem_printf(NULL, "%s.npy", array);
    zip_int64_t i = name ? zip_name_locate(z->zip, name, ZIP_FL_ENC_RAW) : -1;

    mem_free(name);
    return i;
}

bool npz_has(const Npz *z, const char *array)
{
    return locate(z, array) >= 0;
}

typedef struct Member {
    zip_file_t *file;
    const char *label;
} Member;

static int pull(void *ctx, void *buf, size_t *got, size_t n, Err *e)
{
    Member *m = ctx;
    zip_int64_t some = zip_fread(m->file, buf, n);

    *got = some > 0 ? (size_t)some : 0;
    return some >= 0 ? 0
                     : err_set(e, ERR_INPUT, "'%s' is damaged: %s", m->label,
                               zip_error_strerror(zip_file_get_error(m->file)));
}

/* Deflate never shrinks data by more than 1032. */
static int most_bytes(uint64_t *out, const Npz *z, zip_uint64_t i, const char *label, Err *e)
{
    zip_stat_t st;
    const zip_uint64_t needed = ZIP_STAT_SIZE | ZIP_STAT_COMP_SIZE | ZIP_STAT_COMP_METHOD | ZIP_STAT_ENCRYPTION_METHOD;
    uint64_t most;

    if (zip_stat_index(z->zip, i, 0, &st) != 0 || (st.valid & needed) != needed)
        return err_set(e, ERR_INPUT, "'%s' is damaged: %s", label, zip_strerror(z->zip));
    if (st.encryption_method != ZIP_EM_NONE)
        return err_set(e, ERR_INPUT, "'%s' is encrypted", label);
    if (st.comp_method != ZIP_CM_STORE && st.comp_method != ZIP_CM_DEFLATE)
        return err_set(e, ERR_INPUT, "'%s' is packed by method %d, only stored and deflated arrays are read", label,
                       st.comp_method);
    most = st.comp_size < UINT64_MAX / 2048 ? st.comp_size * 1032 + 65536 : st.comp_size;
    *out = st.size < most ? st.size : most;
    return 0;
}

int npz_read(Npy *out, Npz *z, const char *array, NpyUse use, Err *e)
{
    const zip_int64_t i = locate(z, array);
    char *label = mem_printf(e, "%s: %s", z->label, array);
    Member m = {NULL, label};
    uint64_t most = 0;
    int result = -1;

    memset(out, 0, sizeof *out);
    if (!label)
        return -1;
    if (i < 0)
        err_set(e, ERR_INPUT, "'%s' has no array '%s'", z->label, array);
    else if (most_bytes(&most, z, (zip_uint64_t)i, label, e) == 0) {
        m.file = zip_fopen_index(z->zip, (zip_uint64_t)i, 0);
        if (!m.file)
            err_set(e, ERR_INPUT, "'%s' is damaged: %s", label, zip_strerror(z->zip));
        else
            result = npy_read_from(out, file_open_stream(pull, &m, most, label, e), use, e);
    }
    if (m.file)
        zip_fclose(m.file);
    mem_free(label);
    return result;
}
