// The bridge between SQLite's function interface and Go: arguments are laid
// out for Go before the call and the result is read back after it, so that a
// call crosses the language border once.

#ifndef BEDPLATE_FUNCTIONS_BRIDGE_H
#define BEDPLATE_FUNCTIONS_BRIDGE_H

#include <stdint.h>

#define BEDPLATE_MAX_ARGS 4
#define BEDPLATE_INLINE 64

// Types of values and results are SQLite's storage classes; zero in a result
// is an error with data as its text.
enum {
  BEDPLATE_ERROR = 0,
  BEDPLATE_INTEGER = 1,
  BEDPLATE_FLOAT = 2,
  BEDPLATE_TEXT = 3,
  BEDPLATE_BLOB = 4,
  BEDPLATE_NULL = 5
};

typedef struct bedplate_value {
  const void *data;  // TEXT, BLOB: valid during the call
  int64_t integer;   // INTEGER
  double real;       // FLOAT
  int type;
  int size;
} bedplate_value;

typedef struct bedplate_result {
  void *data;        // TEXT, BLOB, error: from malloc, or NULL: in small
  int64_t integer;   // INTEGER
  int type;
  int size;
  unsigned char small[BEDPLATE_INLINE];
} bedplate_result;

// bedplate_register adds one function implemented in Go. SQLite owns handle
// from here on, also when registration fails with a code above zero; a
// negative code means that SQLite is not linked in.
int bedplate_register(void *db, const char *name, int args, int pure, uintptr_t handle);

// bedplate_register_uuid_checks adds is_uuid, is_uuid_v4 and is_uuid_v7.
int bedplate_register_uuid_checks(void *db);

// bedplate_interrupt stops what the connection is running; any thread may
// call it while the connection is open.
void bedplate_interrupt(void *db);

#endif
