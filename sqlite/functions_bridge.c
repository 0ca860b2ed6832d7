#include "functions_bridge.h"

#include <stddef.h>
#include <stdlib.h>

#include "_cgo_export.h"

// The part of SQLite's C interface that is used here. The definitions are
// those that mattn/go-sqlite3 links in. The declarations are weak because this
// package is also linked alone while it is being built.
#define SQLITE_WEAK __attribute__((weak))

typedef struct sqlite3 sqlite3;
typedef struct sqlite3_context sqlite3_context;
typedef struct sqlite3_value sqlite3_value;

extern SQLITE_WEAK int sqlite3_create_function_v2(
    sqlite3 *, const char *, int, int, void *,
    void (*)(sqlite3_context *, int, sqlite3_value **),
    void (*)(sqlite3_context *, int, sqlite3_value **),
    void (*)(sqlite3_context *), void (*)(void *));
extern SQLITE_WEAK void sqlite3_interrupt(sqlite3 *);
extern SQLITE_WEAK void *sqlite3_user_data(sqlite3_context *);
extern SQLITE_WEAK int sqlite3_value_type(sqlite3_value *);
extern SQLITE_WEAK const void *sqlite3_value_blob(sqlite3_value *);
extern SQLITE_WEAK const unsigned char *sqlite3_value_text(sqlite3_value *);
extern SQLITE_WEAK int sqlite3_value_bytes(sqlite3_value *);
extern SQLITE_WEAK int64_t sqlite3_value_int64(sqlite3_value *);
extern SQLITE_WEAK double sqlite3_value_double(sqlite3_value *);
extern SQLITE_WEAK void sqlite3_result_null(sqlite3_context *);
extern SQLITE_WEAK void sqlite3_result_int64(sqlite3_context *, int64_t);
extern SQLITE_WEAK void sqlite3_result_text(sqlite3_context *, const char *, int, void (*)(void *));
extern SQLITE_WEAK void sqlite3_result_blob(sqlite3_context *, const void *, int, void (*)(void *));
extern SQLITE_WEAK void sqlite3_result_error(sqlite3_context *, const char *, int);

// From sqlite3.h; part of its stable interface.
#define SQLITE_UTF8 1
#define SQLITE_DETERMINISTIC 0x000000800
#define SQLITE_INNOCUOUS 0x000200000
#define SQLITE_TRANSIENT ((void (*)(void *))(intptr_t)-1)

static void call(sqlite3_context *ctx, int argc, sqlite3_value **argv) {
  bedplate_value args[BEDPLATE_MAX_ARGS];
  bedplate_result out;
  int i;

  for (i = 0; i < argc && i < BEDPLATE_MAX_ARGS; i++) {
    args[i].data = NULL;
    args[i].size = 0;
    args[i].type = sqlite3_value_type(argv[i]);
    switch (args[i].type) {
    case BEDPLATE_INTEGER:
      args[i].integer = sqlite3_value_int64(argv[i]);
      break;
    case BEDPLATE_FLOAT:
      args[i].real = sqlite3_value_double(argv[i]);
      break;
    case BEDPLATE_TEXT:
      args[i].data = sqlite3_value_text(argv[i]);
      args[i].size = sqlite3_value_bytes(argv[i]);
      break;
    case BEDPLATE_BLOB:
      args[i].data = sqlite3_value_blob(argv[i]);
      args[i].size = sqlite3_value_bytes(argv[i]);
      break;
    }
    if (args[i].data == NULL) args[i].size = 0;
  }

  out.type = BEDPLATE_NULL;
  out.data = NULL;
  out.size = 0;
  bedplateCall((uintptr_t)sqlite3_user_data(ctx), i, args, &out);

  void *data = out.data ? out.data : out.small;
  void (*release)(void *) = out.data ? free : SQLITE_TRANSIENT;
  switch (out.type) {
  case BEDPLATE_INTEGER:
    sqlite3_result_int64(ctx, out.integer);
    break;
  case BEDPLATE_TEXT:
    sqlite3_result_text(ctx, data, out.size, release);
    break;
  case BEDPLATE_BLOB:
    sqlite3_result_blob(ctx, data, out.size, release);
    break;
  case BEDPLATE_ERROR:
    sqlite3_result_error(ctx, data, out.size);
    free(out.data);
    break;
  default:
    sqlite3_result_null(ctx);
  }
}

static void release_handle(void *handle) { bedplateRelease((uintptr_t)handle); }

int bedplate_register(void *db, const char *name, int args, int pure, uintptr_t handle) {
  int flags = SQLITE_UTF8 | SQLITE_INNOCUOUS | (pure ? SQLITE_DETERMINISTIC : 0);
  if (!sqlite3_create_function_v2) return -1;
  return sqlite3_create_function_v2(db, name, args, flags, (void *)handle, call, NULL, NULL, release_handle);
}

// is_uuid answers for every row that is written, so it stays on this side of
// the border. The user data is the version wanted, zero for any.
static void is_uuid(sqlite3_context *ctx, int argc, sqlite3_value **argv) {
  int want = (int)(intptr_t)sqlite3_user_data(ctx);
  int ok = 0;
  (void)argc;

  switch (sqlite3_value_type(argv[0])) {
  case BEDPLATE_NULL:
    ok = 1;
    break;
  case BEDPLATE_BLOB:
    if (sqlite3_value_bytes(argv[0]) == 16) {
      const unsigned char *id = sqlite3_value_blob(argv[0]);
      int version = id[6] >> 4;
      ok = (id[8] >> 6) == 2 && version >= 1 && version <= 8 && (want == 0 || version == want);
    }
    break;
  }
  sqlite3_result_int64(ctx, ok);
}

int bedplate_register_uuid_checks(void *db) {
  static const struct {
    const char *name;
    int version;
  } checks[] = {{"is_uuid", 0}, {"is_uuid_v4", 4}, {"is_uuid_v7", 7}};
  size_t i;

  if (!sqlite3_create_function_v2) return -1;
  for (i = 0; i < sizeof checks / sizeof checks[0]; i++) {
    int rc = sqlite3_create_function_v2(db, checks[i].name, 1,
                                        SQLITE_UTF8 | SQLITE_DETERMINISTIC | SQLITE_INNOCUOUS,
                                        (void *)(intptr_t)checks[i].version, is_uuid, NULL, NULL, NULL);
    if (rc) return rc;
  }
  return 0;
}

void bedplate_interrupt(void *db) { sqlite3_interrupt(db); }
