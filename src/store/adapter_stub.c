#include "sdlora/store.h"
int adapter_save(const Adapter *a, const char *dir, Err *e)
{
    (void)a;
    return err_set(e, ERR_FAILED, "adapter_save('%s') is not there yet", dir);
}
Adapter *adapter_load(const char *path, const Model *model, Err *e)
{
    (void)model;
    err_set(e, ERR_FAILED, "adapter_load('%s') is not there yet", path);
    return NULL;
}
int adapter_files(char **weights, char **config, const char *path, Err *e)
{
    *weights = *config = NULL;
    return err_set(e, ERR_FAILED, "adapter_files('%s') is not there yet", path);
}
int adapter_classes(int *classes, const char *path, const Model *model, Err *e)
{
    (void)classes, (void)path, (void)model, (void)e;
    return 0;
}
