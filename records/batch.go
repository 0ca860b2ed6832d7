package records

import (
	"context"
	"database/sql/driver"
	"errors"
	"net/http"
	"strconv"
	"strings"

	"github.com/bedplate/bedplate/internal/jsonx"
)

// maxBatch bounds the operations of one transaction request.
const maxBatch = 128

var (
	errBatch     = badRequest("Batch size exceeds limit: 128")
	errReference = badRequest("Invalid reference to an earlier operation")
	errNoID      = badRequest("An operation refers to one that has created nothing")
	errDatabases = badRequest("Operations are on different databases")
	errNeedsOne  = badRequest("Idempotency-Key needs \"transaction\": true")
)

// ServeTransaction answers POST requests with a list of operations, on any of
// the APIs:
//
//	{"operations": [
//	   {"Create": {"api_name": "order", "value": {"customer": "Ada"}}},
//	   {"Create": {"api_name": "item", "value": {"order": {"$id": 0}, "count": 2}}},
//	   {"Update": {"api_name": "customer", "record_id": "7", "value": {"active": 1}}},
//	   {"Delete": {"api_name": "draft", "record_id": "9"}}],
//	 "transaction": true}
//
// As a value or a record_id, {"$id": n} is the id of the record of operation n,
// which comes before, from 0. Each operation is judged as if it came by itself,
// by whoever the caller is at the beginning, and sees what those before it have
// done. As a transaction they stand or fall together. Otherwise each is
// committed by itself, and the first one that fails ends the request.
func (s *Service) ServeTransaction(w http.ResponseWriter, r *http.Request) {
	if err := s.serveTransaction(w, r); err != nil {
		s.answer(w, r, err)
	}
}

func (s *Service) serveTransaction(w http.ResponseWriter, r *http.Request) error {
	if r.Method != http.MethodPost {
		return notAllowed(w, "POST")
	}
	if !isJSON(r) {
		return errTypes
	}
	user, err := s.caller(r.Context())
	if err != nil {
		return err
	}
	buf := s.buffers.get()
	data := buf.b
	defer func() { buf.put(data) }()
	if data, err = s.readBody(w, r, buf.b); err != nil {
		return err
	}
	b := batch{s: s, user: user}
	if err := b.decode(data); err != nil {
		return err
	}
	if len(b.writes) == 0 {
		return writeJSON(w, b.body())
	}
	if !b.whole {
		if len(r.Header["Idempotency-Key"]) > 0 {
			return errNeedsOne
		}
		return b.oneByOne(w, r)
	}
	for _, x := range b.writes {
		if x.p.table.database != b.writes[0].p.table.database {
			return errDatabases
		}
	}
	once, err := s.newOnce(r, user, "", b.writes[0].p.table.database, data, b.body)
	if err != nil {
		return err
	}
	switch err := s.apply(r.Context(), nil, b.writes, once); {
	case errors.Is(err, errAnswered):
		return writeJSON(w, once.kept)
	case err != nil:
		return err
	}
	return writeJSON(w, b.body())
}

// batch is a transaction request.
type batch struct {
	s      *Service
	user   caller
	writes []*write
	whole  bool // one transaction

	uploaded int // files so far
}

// oneByOne commits each operation by itself.
func (b *batch) oneByOne(w http.ResponseWriter, r *http.Request) error {
	for _, x := range b.writes {
		if err := b.s.apply(context.WithoutCancel(r.Context()), nil, []*write{x}, nil); err != nil {
			return err
		}
	}
	return writeJSON(w, b.body())
}

// body returns the answer: for older clients the ids, for newer ones the
// results.
func (b *batch) body() []byte {
	ids, results := []byte(`{"ids":[`), []byte(`],"results":[`)
	for i, w := range b.writes {
		if i > 0 {
			ids, results = append(ids, ','), append(results, ',')
		}
		if w.op == Create && w.rows == 0 {
			ids = append(ids, "null"...)
			results = append(results, `{"Error":"db constraint: pk"}`...)
			continue
		}
		ids = jsonx.AppendString(ids, idString(w.key))
		results = append(jsonx.AppendString(append(results, `{"Id":`...), idString(w.key)), '}')
	}
	return append(append(ids, results...), "]}"...)
}

func (b *batch) decode(data []byte) error {
	if kind, err := jsonx.TopLevel(data); err != nil || kind != jsonx.Object {
		return errBody
	}
	var known *Error
	err := jsonx.ParseObject(data, func(name []byte, v jsonx.Value) error {
		switch string(name) {
		case "transaction":
			switch v.Kind {
			case jsonx.Null:
			case jsonx.Bool:
				b.whole = v.Bool
			default:
				return errBody
			}
		case "operations":
			if v.Kind != jsonx.Array {
				return errBody
			}
			return jsonx.ParseArray(v.Raw, b.operation)
		}
		return nil
	})
	switch {
	case errors.As(err, &known):
		return err
	case err != nil:
		return errBody.because(err)
	}
	return nil
}

// operation reads an element of operations.
func (b *batch) operation(v jsonx.Value) error {
	if len(b.writes) == maxBatch {
		return errBatch
	}
	if v.Kind != jsonx.Object {
		return errBody
	}
	w := &write{at: "/operations/" + strconv.Itoa(len(b.writes))}
	err := jsonx.ParseObject(v.Raw, func(name []byte, v jsonx.Value) error {
		op := map[string]Permission{"Create": Create, "Update": Update, "Delete": Delete}[string(name)]
		if op == 0 || w.op != 0 || v.Kind != jsonx.Object {
			return errBody
		}
		w.op = op
		return b.arguments(w, v.Raw)
	})
	if err == nil && w.op == 0 {
		err = errBody
	}
	b.writes = append(b.writes, w)
	return w.located(err)
}

// arguments reads what an operation is about.
func (b *batch) arguments(w *write, data []byte) error {
	var name, id, value jsonx.Value
	err := jsonx.ParseObject(data, func(member []byte, v jsonx.Value) error {
		switch string(member) {
		case "api_name":
			name = v
		case "record_id":
			id = v
		case "value":
			value = v
		}
		return nil
	})
	if err != nil || name.Kind != jsonx.String {
		return errBody
	}
	api, err := name.Text()
	if err != nil {
		return errBody
	}
	if w.p, err = b.s.plan(api); err != nil {
		return err
	}
	switch {
	case w.p.table.view:
		return ErrNotAllowed
	case !w.p.allows(w.op, b.user): // before anything is said about its columns
		return ErrDenied
	}
	w.r = w.p.newRequest(b.user)
	w.r.uploaded = &b.uploaded
	w.r.at = w.at + "/" + map[Permission]string{Create: "Create", Update: "Update", Delete: "Delete"}[w.op] + "/value"
	refers := false
	w.r.refer = func(c *column, v jsonx.Value) (driver.Value, error) {
		refers = true
		return b.reference(c, v)
	}
	if w.op != Create {
		if w.r.key, err = b.recordID(w, id); err != nil {
			return err
		}
	}
	if w.op != Delete {
		if value.Kind != jsonx.Object {
			return errBody
		}
		if err := w.p.decodeInto(w.r, value.Raw); err != nil {
			return err
		}
	}
	if w.op == Update {
		if err := w.r.sameKey(w.p); err != nil {
			return err
		}
	}
	if _, ok := w.r.key.(reference); !ok && !refers {
		w.r.refer = nil
	}
	return nil
}

// recordID reads a record_id.
func (b *batch) recordID(w *write, v jsonx.Value) (driver.Value, error) {
	key := w.p.table.key
	switch v.Kind {
	case jsonx.Object:
		return b.reference(key, v)
	case jsonx.String:
		id, err := v.Text()
		if err != nil {
			return nil, ErrInvalidID
		}
		return key.decodeID(id)
	case jsonx.Int:
		return key.decodeID(strconv.FormatInt(v.Int, 10))
	}
	return nil, ErrInvalidID
}

// reference reads {"$id": n} as a value of c.
func (b *batch) reference(c *column, v jsonx.Value) (driver.Value, error) {
	n := int64(-1)
	err := jsonx.ParseObject(v.Raw, func(name []byte, v jsonx.Value) error {
		if string(name) != "$id" || v.Kind != jsonx.Int {
			return errReference
		}
		n = v.Int
		return nil
	})
	if err != nil || n < 0 || n >= int64(len(b.writes)) {
		return nil, errReference
	}
	to := b.writes[n]
	if have := to.p.table.key.typ; c.typ != have && c.typ != anyType {
		return nil, errReference
	}
	return reference{to}, nil
}

// sameKey refuses an update that gives its record another key.
func (r *request) sameKey(p *plan) error {
	k := p.table.key
	if !r.given.has(k.index) {
		return nil
	}
	if identity(r.values[k.index]) != identity(r.key) {
		return errKey
	}
	r.given.remove(k.index)
	return nil
}

func isJSON(r *http.Request) bool {
	return strings.HasPrefix(r.Header.Get("Content-Type"), "application/json")
}

// located adds to err which operation it is about.
func (w *write) located(err error) error {
	var known *Error
	if w.at == "" || !errors.As(err, &known) || len(known.Fields) > 0 || known.Status >= http.StatusInternalServerError {
		return err
	}
	e := *known
	e.Fields = []FieldError{{Pointer: w.at, Code: "operation", Detail: "this operation is refused"}}
	return &e
}
