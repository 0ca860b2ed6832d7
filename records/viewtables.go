package records

import (
	"bytes"
	"database/sql/driver"
	"slices"
	"sort"

	"github.com/bedplate/bedplate/sqlite"
)

// The temporary table of users. No rule can name it or its columns, because
// these names have a meaning of their own there.
const (
	userTable  = `temp."_USER_"`
	userNumber = `"_USER_"."_REQ_"`
	userID     = `"_USER_"."_USER_"`
)

// maxMembers bounds the users kept in one scratch.
const maxMembers = 1 << 18

// maxSets bounds the sets of users kept in one scratch: nobody tells when a
// view is gone.
const maxSets = 1024

// tables is what a scratch holds for views: the images of the latest changes
// by table, and sets of users by view.
type tables struct {
	q       *sqlite.Scratch
	images  map[string]*loaded
	sets    map[string]*userSet
	members int   // of all sets
	nextSet int64 // behind the numbers of the latest set
}

type loaded struct {
	create  string
	changes []*sqlite.Change
	args    []driver.Value // scratch
}

type tablesKey struct{}

func tablesOf(q *sqlite.Scratch) (*tables, error) {
	made := false
	t := q.Value(tablesKey{}, func() any {
		made = true
		return &tables{q: q, images: map[string]*loaded{}, sets: map[string]*userSet{}}
	}).(*tables)
	if !made {
		return t, nil
	}
	err := t.run(nil, `DROP TABLE IF EXISTS `+userTable)
	if err == nil {
		err = t.run(nil, `CREATE TABLE `+userTable+` ("_REQ_" INTEGER PRIMARY KEY, "_USER_")`)
	}
	return t, err
}

// run runs a statement that changes what t describes. If it fails, and with it
// perhaps what came before, the next call begins anew.
func (t *tables) run(args []driver.Value, text string) error {
	err := t.q.Query(text, args, nil)
	if err != nil {
		t.q.Forget(tablesKey{})
	}
	return err
}

// load makes sure that the images of changes are in the table of l and returns
// the number of the first change. The image before the change i has the
// ordinal 2i, the one after it 2i+1.
func (t *tables) load(l *live, of *table, changes []*sqlite.Change) (first int, err error) {
	im := t.images[l.images]
	if im == nil || im.create != l.create {
		im = &loaded{create: l.create, args: make([]driver.Value, 1+len(of.columns))}
		if err := t.run(nil, "DROP TABLE IF EXISTS "+l.images); err != nil {
			return 0, err
		}
		if err := t.run(nil, l.create); err != nil {
			return 0, err
		}
		t.images[l.images] = im
	}
	if first, ok := im.find(changes); ok {
		return first, nil
	}
	if len(im.changes) > 0 {
		if err := t.run(nil, "DELETE FROM "+l.images); err != nil {
			return 0, err
		}
	}
	im.changes = changes
	for i, c := range changes {
		places := l.places(of, c.Columns)
		for before := range 2 {
			row := image(c, before == 0)
			if row == nil {
				continue
			}
			im.args[0] = int64(2*i + before)
			for _, col := range of.columns {
				im.args[1+col.index] = places.value(row, col)
			}
			if err := t.run(im.args, l.insert); err != nil {
				return 0, err
			}
		}
	}
	clear(im.args)
	return 0, nil
}

// find returns where among the loaded changes these are, which may be some of
// them.
func (im *loaded) find(changes []*sqlite.Change) (first int, ok bool) {
	if len(changes) == 0 {
		return 0, true
	}
	seq := changes[0].Seq
	first = sort.Search(len(im.changes), func(i int) bool { return im.changes[i].Seq >= seq })
	if first+len(changes) > len(im.changes) {
		return 0, false
	}
	here := im.changes[first : first+len(changes)]
	return first, &here[0] == &changes[0] || slices.Equal(here, changes)
}

// users returns the set of a view with all these users in it, or nil if it is
// better to ask for one after the other. Users who were there before stay for
// a while: so those of a single record and those of the whole view do not
// drive each other out.
func (t *tables) users(view string, users []any) (*userSet, error) {
	s := t.sets[view]
	if s != nil && s.same(users) {
		return s, nil
	}
	if s != nil && len(users)*2*fewUsers < s.count() {
		return nil, nil
	}
	if t.members+len(users) > maxMembers {
		if err := t.run(nil, "DELETE FROM "+userTable); err != nil {
			return nil, err
		}
		t.members, s = 0, nil
		clear(t.sets)
	}
	if s == nil {
		if err := t.makeRoom(); err != nil {
			return nil, err
		}
		t.nextSet += maxMembers
		s = newUserSet(t.nextSet)
		t.sets[view] = s
	}
	distinct, err := t.enter(s, users)
	if err != nil || !distinct {
		return nil, err
	}
	s.latest = append(s.latest[:0], users...)
	return s, t.sweep(s)
}

// makeRoom removes any of the sets if there are too many.
func (t *tables) makeRoom() error {
	if len(t.sets) < maxSets {
		return nil
	}
	for view, s := range t.sets {
		delete(t.sets, view)
		t.members -= s.count()
		return t.run([]driver.Value{s.first, s.first + int64(len(s.members))}, "DELETE FROM "+userTable+` WHERE "_REQ_" >= ?1 AND "_REQ_" < ?2`)
	}
	return nil
}

// enter gives all users their place in s. It reports whether they are all
// different.
func (t *tables) enter(s *userSet, users []any) (distinct bool, err error) {
	s.calls++
	s.latest = s.latest[:0]
	for place, u := range users {
		n, known := s.find(u)
		if !known {
			n = s.add(u)
			t.members++
			err := t.run([]driver.Value{s.first + int64(n), u}, "INSERT INTO "+userTable+` ("_REQ_", "_USER_") VALUES (?1, ?2)`)
			if err != nil {
				return false, err
			}
		}
		if s.members[n].call == s.calls {
			return false, nil
		}
		s.members[n].call, s.members[n].place = s.calls, place
	}
	return true, nil
}

// sweep removes users who have not been there for many calls.
func (t *tables) sweep(s *userSet) error {
	const often = 64
	if s.calls%often != 0 {
		return nil
	}
	for n := range s.members {
		m := &s.members[n]
		if !m.here || m.call > s.calls-often {
			continue
		}
		s.remove(n)
		t.members--
		err := t.run([]driver.Value{s.first + int64(n)}, "DELETE FROM "+userTable+` WHERE "_REQ_" = ?1`)
		if err != nil {
			return err
		}
	}
	return nil
}

// userSet is the users of a view, each with a number.
type userSet struct {
	first   int64 // what the numbers count from in the table
	calls   int
	latest  []any // users of the latest call
	members []member
	free    []int // numbers
	ints    map[int64]int
	texts   map[string]int
	blobs   map[string]int
	nobody  int // number of the anonymous user, or -1
}

type member struct {
	user  any
	here  bool
	call  int // the latest with this user
	place int // in the users of that call
}

func newUserSet(first int64) *userSet {
	return &userSet{first: first, ints: map[int64]int{}, texts: map[string]int{}, blobs: map[string]int{}, nobody: -1}
}

func (s *userSet) count() int { return len(s.members) - len(s.free) }

// place returns where among the users of the latest call the one with the
// number n is, or -1.
func (s *userSet) place(n int) int {
	if m := &s.members[n]; m.here && m.call == s.calls {
		return m.place
	}
	return -1
}

func (s *userSet) find(user any) (n int, ok bool) {
	switch u := user.(type) {
	case int64:
		n, ok = s.ints[u]
	case string:
		n, ok = s.texts[u]
	case []byte:
		n, ok = s.blobs[string(u)]
	default:
		n, ok = s.nobody, s.nobody >= 0
	}
	return n, ok
}

func (s *userSet) add(user any) (n int) {
	if last := len(s.free) - 1; last >= 0 {
		n, s.free = s.free[last], s.free[:last]
	} else {
		n = len(s.members)
		s.members = append(s.members, member{})
	}
	s.members[n] = member{user: user, here: true, call: -1}
	switch u := user.(type) {
	case int64:
		s.ints[u] = n
	case string:
		s.texts[u] = n
	case []byte:
		s.blobs[string(u)] = n
	default:
		s.nobody = n
	}
	return n
}

func (s *userSet) remove(n int) {
	switch u := s.members[n].user.(type) {
	case int64:
		delete(s.ints, u)
	case string:
		delete(s.texts, u)
	case []byte:
		delete(s.blobs, string(u))
	default:
		s.nobody = -1
	}
	s.members[n] = member{}
	s.free = append(s.free, n)
}

// same reports whether these are the users of the latest call, in its order.
func (s *userSet) same(users []any) bool {
	if len(users) != len(s.latest) {
		return false
	}
	for i, u := range users {
		switch was := s.latest[i].(type) {
		case []byte:
			if b, ok := u.([]byte); !ok || !bytes.Equal(was, b) {
				return false
			}
		default:
			if _, blob := u.([]byte); blob || u != was {
				return false
			}
		}
	}
	return true
}
