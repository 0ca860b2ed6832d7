package sqlite

/*
#cgo darwin LDFLAGS: -Wl,-undefined,dynamic_lookup
#include <stdlib.h>
#include "functions_bridge.h"
*/
import "C"

import (
	"errors"
	"fmt"
	"reflect"
	"runtime/cgo"
	"strings"
	"unsafe"

	sqlite3 "github.com/mattn/go-sqlite3"
)

// The driver's own RegisterFunc cannot mark a function as innocuous, so that
// CHECK (is_uuid_v7(id)) fails on a connection with trusted_schema=OFF, and
// its reflection costs more than the work of a small function. Functions are
// therefore registered here, on the driver's SQLite.

// sqlFunc is a function for SQL. The arguments are valid during the call only.
// It sets out, which is NULL until then, or returns an error that fails the
// statement. Calls on one connection never overlap.
type sqlFunc func(out *result, args []value) error

// function is a registration: the name, the number of arguments (at most
// C.BEDPLATE_MAX_ARGS), whether equal arguments give equal results.
type function struct {
	name string
	args int
	pure bool
	call sqlFunc
}

func (f function) register(db unsafe.Pointer) error {
	name := C.CString(f.name)
	defer C.free(unsafe.Pointer(name))
	pure := C.int(0)
	if f.pure {
		pure = 1
	}
	handle := cgo.NewHandle(f.call)
	code := C.bedplate_register(db, name, C.int(f.args), pure, C.uintptr_t(handle))
	if code < 0 {
		handle.Delete()
	}
	return registered(code)
}

func registerUUIDChecks(db unsafe.Pointer) error {
	return registered(C.bedplate_register_uuid_checks(db))
}

func registered(code C.int) error {
	switch {
	case code == 0:
		return nil
	case code < 0:
		return errors.New("SQLite is not linked in")
	default:
		return sqlite3.Error{Code: sqlite3.ErrNo(code & 0xff), ExtendedCode: sqlite3.ErrNoExtended(code)}
	}
}

// databaseHandle returns the sqlite3* of a connection. The driver does not
// hand it out, so this reads its field.
func databaseHandle(c *sqlite3.SQLiteConn) (unsafe.Pointer, error) {
	db := reflect.ValueOf(c).Elem().FieldByName("db")
	if !db.IsValid() || db.Kind() != reflect.Pointer || !strings.HasSuffix(db.Type().String(), "_sqlite3") {
		return nil, fmt.Errorf("this version of mattn/go-sqlite3 is not supported: no database handle in %T", c)
	}
	if db.IsNil() {
		return nil, errors.New("the connection is closed")
	}
	return db.UnsafePointer(), nil
}

// interrupt stops the statement that the connection runs, if any
// (https://www.sqlite.org/c3ref/interrupt.html). Any goroutine may call it
// while the connection is open.
func interrupt(db unsafe.Pointer) { C.bedplate_interrupt(db) }

//export bedplateCall
func bedplateCall(handle C.uintptr_t, argc C.int, argv *C.bedplate_value, out *C.bedplate_result) {
	r := (*result)(unsafe.Pointer(out))
	defer func() {
		if p := recover(); p != nil {
			r.setError(fmt.Sprintf("panic in an SQL function: %v", p))
		}
	}()
	call := cgo.Handle(handle).Value().(sqlFunc)
	if err := call(r, unsafe.Slice((*value)(unsafe.Pointer(argv)), int(argc))); err != nil {
		r.setError(err.Error())
	}
}

//export bedplateRelease
func bedplateRelease(handle C.uintptr_t) { cgo.Handle(handle).Delete() }

// value is an argument of an SQL function.
type value C.bedplate_value

func (v *value) isNull() bool { return v._type == C.BEDPLATE_NULL }

// blob returns the bytes of a BLOB, without a copy.
func (v *value) blob() ([]byte, bool) {
	return v.bytes(), v._type == C.BEDPLATE_BLOB
}

// text returns the bytes of a TEXT, without a copy.
func (v *value) text() ([]byte, bool) {
	return v.bytes(), v._type == C.BEDPLATE_TEXT
}

// int64 returns an INTEGER.
func (v *value) int64() (int64, bool) {
	return int64(v.integer), v._type == C.BEDPLATE_INTEGER
}

func (v *value) bytes() []byte {
	if v._type != C.BEDPLATE_BLOB && v._type != C.BEDPLATE_TEXT {
		return nil
	}
	return unsafe.Slice((*byte)(v.data), int(v.size))
}

// result is what an SQL function returns; NULL unless set.
type result C.bedplate_result

func (r *result) setBool(b bool) {
	r._type, r.integer = C.BEDPLATE_INTEGER, 0
	if b {
		r.integer = 1
	}
}

func (r *result) setBlob(b []byte) { set(r, C.BEDPLATE_BLOB, b) }

func (r *result) setText(s []byte) { set(r, C.BEDPLATE_TEXT, s) }

func (r *result) setError(message string) { set(r, C.BEDPLATE_ERROR, message) }

func set[T string | []byte](r *result, kind C.int, data T) {
	small := unsafe.Slice((*byte)(unsafe.Pointer(&r.small[0])), len(r.small))
	if r.data != nil {
		C.free(r.data)
		r.data = nil
	}
	if len(data) > len(small) {
		r.data = C.malloc(C.size_t(len(data)))
		small = unsafe.Slice((*byte)(r.data), len(data))
	}
	r._type, r.size = kind, C.int(copy(small, data))
}
