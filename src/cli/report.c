/* Rows and objects: see report.h. */
#include "report.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "sdlora/mem.h"
#include "sdlora/text.h"

#include "cli.h"

enum { LABEL_WIDTH = 16, ROW_CAP = 2048 };

int report_begin(Report *r, bool tensors, Err *e)
{
    memset(r, 0, sizeof *r);
    r->tensors = tensors;
    r->json = json_object();
    r->text = open_memstream(&r->buffer, &r->size);
    return r->json && r->text ? 0 : err_set(e, ERR_FAILED, "no memory for what is to be said");
}

void report_free(Report *r)
{
    if (r->text)
        fclose(r->text);
    free(r->buffer);
    json_decref(r->json);
    memset(r, 0, sizeof *r);
}

json_t *report_string(const char *text)
{
    json_t *value = json_string(text);
    size_t cap = 4 * strlen(text) + 1;
    char *safe = value ? NULL : mem_alloc(cap, 1, "a text", NULL);
    if (safe)
        value = json_string(text_safe(safe, cap, text));
    mem_free(safe);
    return value;
}

void report_set(Report *r, const char *key, json_t *value)
{
    json_object_set_new(r->json, key, value);
}

void report_title(Report *r, const char *kind, const char *what, const char *path)
{
    fprintf(r->text, "%s '", what);
    cli_put(r->text, path);
    fputs("'\n", r->text);
    report_set(r, "file", report_string(path));
    report_set(r, "kind", json_string(kind));
}

void report_text(Report *r, const char *label, const char *text, int most)
{
    int columns = 0;
    int pad = LABEL_WIDTH - text_columns(label);
    fputs("  ", r->text);
    cli_put(r->text, label);
    fprintf(r->text, "%*s ", pad > 0 ? pad : 0, "");
    for (TextUnit u; (u = text_unit(text)).bytes; text += u.bytes) {
        columns += u.columns;
        if (most && columns > most) {
            fputs("...", r->text);
            break;
        }
        for (int i = 0; i < u.bytes; i++)
            fprintf(r->text, u.plain ? "%c" : "\\x%02x", (unsigned char)text[i]);
    }
    fputc('\n', r->text);
}

void report_row(Report *r, const char *label, const char *fmt, ...)
{
    char text[ROW_CAP];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    report_text(r, label, text, 0);
}

/* In ASCII, so that nothing in it speaks to the terminal. Jansson leaves DEL as it is; it can only lie in strings. */
int report_print_json(const json_t *root, Err *e)
{
    char *text = json_text(root, JSON_INDENT(2) | JSON_ENSURE_ASCII | JSON_REAL_PRECISION(9), "what was found", e);
    if (!text)
        return -1;
    for (const char *p = text; *p; p++)
        if (*p == 0x7f)
            printf("\\u007f");
        else
            putchar(*p);
    printf("\n");
    mem_free(text);
    return 0;
}

int report_print(Report *r, bool json, Err *e)
{
    if (json)
        return report_print_json(r->json, e);
    if (fflush(r->text) || ferror(r->text))
        return err_set(e, ERR_FAILED, "no memory for what is to be said");
    fwrite(r->buffer, 1, r->size, stdout);
    return 0;
}

const char *report_bytes(char buf[32], double bytes)
{
    char n[32];
    if (bytes < 10e6)
        snprintf(buf, 32, "%.20s KB", text_count(n, (int64_t)(bytes / 1e3 + 0.5)));
    else
        snprintf(buf, 32, bytes < 10e9 ? "%.1f MB" : "%.0f MB", bytes / 1e6);
    return buf;
}

const char *report_last_name(char *buf, size_t cap, const char *path)
{
    size_t end = strlen(path), begin;
    while (end > 1 && path[end - 1] == '/')
        end--;
    begin = end;
    while (begin > 0 && path[begin - 1] != '/')
        begin--;
    snprintf(buf, cap, "%.*s", (int)(end - begin), path + begin);
    return buf;
}

const char *report_word(char *buf, size_t cap, const char *word)
{
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./:,=+-%@";
    size_t used = 0;
    if (*word && strspn(word, plain) == strlen(word)) {
        snprintf(buf, cap, "%s", word);
        return buf;
    }
    used += (size_t)snprintf(buf, cap, "'");
    for (; *word && used < cap; word++)
        used += (size_t)snprintf(buf + used, cap - used, *word == '\'' ? "'\\''" : "%c", *word);
    if (used < cap)
        snprintf(buf + used, cap - used, "'");
    return buf;
}
