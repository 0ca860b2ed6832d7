package realtime

import (
	"encoding/base64"
	"errors"
	"fmt"
	"runtime/debug"
	"strconv"

	"github.com/bedplate/bedplate/sqlite"
)

// images says which images of a row somebody may see.
type images uint8

const (
	sawOld images = 1 << iota
	sawNew
)

var errPanic = errors.New("realtime: panic in a view")

// recovering calls fn, which calls methods of a view. A panic is an error,
// errPanic.
func recovering(fn func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: %v\n%s", errPanic, p, debug.Stack())
		}
	}()
	return fn()
}

// judge calls tell for each row and user who may see something of it, row by
// row.
func judge(q *sqlite.Scratch, v View, changes []*sqlite.Change, users []any, tell func(row, user int, seen images)) error {
	n := len(users)
	if !v.PerUser() {
		n = 1
	}
	seen := make([]images, n*len(changes))
	err := v.Judge(q, changes, users, func(change, user int, old bool) {
		image := sawNew
		if old {
			image = sawOld
		}
		seen[change*n+user] |= image
	})
	if err != nil {
		return err
	}
	for i, s := range seen {
		switch {
		case s == 0:
		case v.PerUser():
			tell(i/n, i%n, s)
		default:
			for user := range users { // what one sees, all see
				tell(i, user, s)
			}
		}
	}
	return nil
}

// eventOf returns what a change is to somebody who watches all records and
// sees these images of it.
func (s *Service) eventOf(v View, e *entry, seen images) (event, bool) {
	ev := event{seq: e.Seq, id: e.id}
	moved := e.Op == sqlite.RowUpdate && len(recordKeys(v, e.Change)) > 1
	switch {
	case e.Op == sqlite.RowInsert && seen&sawNew != 0:
		ev.texts[0] = s.body(v, e, inserted)
	case e.Op == sqlite.RowDelete && seen&sawOld != 0,
		e.Op == sqlite.RowUpdate && seen == sawOld: // the row has left the view
		ev.texts[0] = s.body(v, e, deleted)
	case moved && seen == sawOld|sawNew:
		ev.texts[0], ev.texts[1] = s.body(v, e, deleted), s.body(v, e, inserted)
	case moved && seen == sawNew:
		ev.texts[0] = s.body(v, e, inserted)
	case e.Op == sqlite.RowUpdate && seen&sawNew != 0:
		ev.texts[0] = s.body(v, e, updated)
	default:
		return ev, false
	}
	return ev, true
}

// recordEvent is eventOf for those who watch the record with the key k.
func (s *Service) recordEvent(v View, e *entry, k string, seen images) (event, bool) {
	if e.Op != sqlite.RowUpdate {
		return s.eventOf(v, e, seen)
	}
	ev := event{seq: e.Seq, id: e.id}
	was, is := keyText(v.RowKey(e.Change, true)) == k, keyText(v.RowKey(e.Change, false)) == k
	switch {
	case was && is && seen&sawNew != 0:
		ev.texts[0] = s.body(v, e, updated)
	case was && is && seen&sawOld != 0:
		ev.texts[0], ev.end = deniedText, errDenied
	case was && !is && seen&sawOld != 0:
		ev.texts[0] = s.body(v, e, deleted)
	case is && !was && seen&sawNew != 0:
		ev.texts[0] = s.body(v, e, inserted)
	default:
		return ev, false
	}
	return ev, true
}

// body returns the event of that kind as v shows it.
func (s *Service) body(v View, e *entry, k kind) []byte {
	text, err := e.body(v, k)
	if err != nil {
		s.log.Error("encode a change", "table", e.Table, "seq", e.Seq, "error", err)
		return brokenText
	}
	return text
}

// Events that are not about a row (spec section 4.2).
var (
	deniedText = []byte(`{"Error":{"status":1,"message":"Access denied"}`)
	brokenText = []byte(`{"Error":{"status":3,"message":null}`)
	gapText    = []byte(`{"Error":{"status":2,"message":"changes are missing, list again"}`)
)

var errDenied = errors.New("realtime: access to the record was lost")

func gapEvent(seq int64, sealer *sqlite.Sealer) event {
	return event{seq: seq, id: sealer.Seal(seq), texts: [2][]byte{gapText}}
}

func breakEvent(e *entry) event { return event{seq: e.Seq, id: e.id, texts: [2][]byte{gapText}} }

// isKey reports whether v is of a type that keyText tells apart.
func isKey(v any) bool {
	switch v.(type) {
	case nil, int64, string, []byte:
		return true
	}
	return false
}

// keyText returns a text that differs for different keys, "" for nil.
func keyText(v any) string {
	switch v := v.(type) {
	case nil:
		return ""
	case int64:
		return "i" + strconv.FormatInt(v, 10)
	case string:
		return "s" + v
	case []byte:
		return "b" + base64.RawStdEncoding.EncodeToString(v)
	}
	return "?"
}
