package records

import (
	"database/sql/driver"
	"fmt"
)

// expander includes the rows that foreign keys refer to. Each row comes from
// the same statement that reads it by id, so the rules of the API that
// exposes it apply.
type expander struct {
	user  caller
	want  map[*expansion]bool
	query queryFunc
	cache map[expanded][]byte // nil for rows that the caller may not read
	rows  int                 // of back relations, so far
}

// flat is for the inside of an expanded row: foreign keys are plain values.
var flat = &expander{}

// identity returns a text that differs for different values of a key.
func identity(v driver.Value) string { return fmt.Sprintf("%T %v", v, v) }

type expanded struct {
	e  *expansion
	id string
}

// expander returns what the names in a request ask for, or nil. Names of back
// relations are left to the selection.
func (s *Service) expander(p *plan, names []string, user caller) (*expander, error) {
	if len(names) == 0 {
		return nil, nil
	}
	x := &expander{user: user, want: map[*expansion]bool{}, cache: map[expanded][]byte{}}
	for _, name := range names {
		if e := p.expand[name]; e != nil {
			x.want[e] = true
		} else if p.back[name] == nil {
			return nil, errExpand
		}
	}
	return x, nil
}

// append appends `"data":{…},` if the row is wanted and may be read.
func (x *expander) append(dst []byte, e *expansion, id driver.Value) ([]byte, error) {
	if !x.want[e] {
		return dst, nil
	}
	key := expanded{e, identity(id)}
	data, known := x.cache[key]
	if !known {
		var err error
		if data, err = x.read(e, id); err != nil {
			return dst, err
		}
		x.cache[key] = data
	}
	if data == nil {
		return dst, nil
	}
	dst = append(append(dst, `"data":`...), data...)
	return append(dst, ','), nil
}

func (x *expander) read(e *expansion, id driver.Value) (data []byte, err error) {
	plans := e.apis
	if e.plain != nil {
		plans = []*plan{e.plain}
	}
	r := &request{user: x.user, key: id}
	for _, p := range plans {
		if p != e.plain && !p.allows(Read, x.user) {
			continue
		}
		st := p.readOne
		if x.user.system && p != e.plain {
			st = p.readAny
		}
		err := x.query(st.sql, st.bind(r), func(row []driver.Value) (err error) {
			data, err = p.appendRecord(nil, row, flat, nil)
			return err
		})
		switch {
		case err == nil && data != nil:
			return data, nil
		case err != nil && (p.read == nil || !evaluation(err)):
			return nil, err
		}
		// No row, or a rule that cannot be evaluated: the next API decides.
	}
	return nil, nil
}
