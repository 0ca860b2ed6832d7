package records_test

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bedplate/bedplate/records"
	"github.com/bedplate/bedplate/sqlite"
)

const librarySchema = `
CREATE TABLE _user (id INTEGER PRIMARY KEY, email TEXT NOT NULL, password_hash TEXT NOT NULL) STRICT;
CREATE TABLE friend (a TEXT NOT NULL, b TEXT NOT NULL) STRICT;
CREATE TABLE author (id INTEGER PRIMARY KEY, name TEXT NOT NULL, owner TEXT NOT NULL, phone TEXT, _note TEXT) STRICT;
CREATE TABLE shelf (id INTEGER PRIMARY KEY, label TEXT, _secret TEXT) STRICT;
CREATE TABLE book (id INTEGER PRIMARY KEY, title TEXT, author INTEGER REFERENCES author(id), shelf INTEGER REFERENCES shelf,
  made_by INTEGER REFERENCES _user(id), sequel INTEGER REFERENCES book(id)) STRICT;
INSERT INTO _user VALUES (1, 'eve@example.com', 'HASH');
INSERT INTO author VALUES (1, 'Ann', 'alice', 'PHONE1', 'NOTE1'), (2, 'Bob', 'bob', 'PHONE2', 'NOTE2');
INSERT INTO shelf VALUES (7, 'top', 'SECRET');
INSERT INTO book VALUES (1, 'one', 1, 7, 1, NULL), (2, 'two', 2, NULL, 1, 1), (3, 'three', NULL, 7, NULL, 2);
`

// secrets must not be in any answer to alice.
var secrets = []string{"PHONE", "NOTE", "SECRET", "HASH", "eve@", `"Bob"`}

func libraryAPIs() []records.API {
	return []records.API{
		{Name: "books", Table: "book", World: everything, Expand: []string{"author", "shelf"}},
		{Name: "authors", Table: "author", World: records.Read, ReadRule: `_ROW_.owner = _USER_.id`, Exclude: []string{"phone"}},
	}
}

func TestExpand(t *testing.T) {
	t.Parallel()
	db := openDB(t, librarySchema)
	h := serve(t, db, libraryAPIs()...)

	shelf := `{"data":{"id":7,"label":"top"},"id":7}`
	ann := `{"data":{"id":1,"name":"Ann","owner":"alice"},"id":1}`
	one := func(author, shelf string) string {
		return `{"author":` + author + `,"id":1,"made_by":1,"sequel":null,"shelf":` + shelf + `,"title":"one"}`
	}
	want(t, get(h, "alice", "/books/1"), 200, one(`{"id":1}`, `{"id":7}`))
	want(t, get(h, "alice", "/books/1?expand="), 200, one(`{"id":1}`, `{"id":7}`))
	want(t, get(h, "alice", "/books/1?expand=author"), 200, one(ann, `{"id":7}`))
	want(t, get(h, "alice", "/books/1?expand=shelf,author"), 200, one(ann, shelf))
	want(t, get(h, "", "/books/1?expand=author,shelf"), 200, one(`{"id":1}`, shelf))
	want(t, get(h, "alice", "/books/2?expand=author"), 200, `{"author":{"id":2},"id":2,"made_by":1,"sequel":1,"shelf":null,"title":"two"}`)

	for _, bad := range []string{"made_by", "sequel", "title", "id", "nope", "_nope", "author,made_by", "Author", "author.id"} {
		r, l := get(h, "alice", "/books/1?expand="+bad), get(h, "alice", "/books?expand="+bad)
		want(t, r, 400, "Invalid expansion")
		if r.same() != l.same() {
			t.Errorf("expand=%s: read %v, list %v", bad, r, l)
		}
	}
	want(t, get(h, "alice", "/authors/1?expand=owner"), 400, "Invalid expansion")

	// The list shows what a read shows.
	for _, who := range []string{"", "alice", "bob"} {
		for _, expand := range []string{"", "author", "shelf", "author,shelf"} {
			p := list(t, h, who, "/books?order=id&expand="+expand)
			for i, id := range []string{"1", "2", "3"} {
				if r := get(h, who, "/books/"+id+"?expand="+expand); r.body != string(p.Records[i]) {
					t.Errorf("%q expand=%s: read %s, list %s", who, expand, r.body, p.Records[i])
				}
			}
		}
	}
	all := get(h, "alice", "/books?expand=author,shelf").body + get(h, "alice", "/books/2?expand=author,shelf").body
	noSecrets(t, all)
}

func noSecrets(t *testing.T, body string) {
	t.Helper()
	for _, s := range secrets {
		if strings.Contains(body, s) {
			t.Errorf("%q is in %s", s, body)
		}
	}
}

// A table that an API exposes stays behind the rules of that API, whatever
// happens to the API.
func TestExpandWithBrokenAPI(t *testing.T) {
	t.Parallel()
	db := openDB(t, librarySchema)
	apis := libraryAPIs()
	apis[1].ReadRule = `_ROW_.owner = _USER_.id OR EXISTS (SELECT 1 FROM friend WHERE a = _ROW_.owner AND b = _USER_.id)`
	h := serve(t, db, apis...)
	execSQL(t, db, `DROP TABLE friend`)
	wantStatus(t, get(h, "alice", "/authors/1"), 500)
	for _, path := range []string{"/books/2?expand=author", "/books/1?expand=author", "/books?expand=author"} {
		noSecrets(t, get(h, "alice", path).body)
	}
	execSQL(t, db, `CREATE TABLE friend (a TEXT NOT NULL, b TEXT NOT NULL) STRICT`)
	wantStatus(t, get(h, "alice", "/authors/1"), 200)
}

// The spelling of a database's name does not open a way around an API.
func TestExpandSpelling(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, names := range [][2]string{{"author", "book"}, {"main.author", "book"}, {"MAIN.author", "book"}, {"author", "Main.Book"}, {"AUTHOR", "BOOK"}} {
		db := openFile(t, filepath.Join(dir, strings.Join(names[:], "-")), librarySchema, sqlite.Options{})
		apis := libraryAPIs()
		apis[0].Table, apis[1].Table = names[1], names[0]
		svc, err := records.New(db, records.Config{APIs: apis, Caller: callerOf, Logger: quiet()})
		if err != nil {
			continue // refusing an unusual spelling is fine
		}
		h := signIn(svc)
		for _, path := range []string{"/books/2?expand=author", "/books/1?expand=author", "/books?expand=author"} {
			noSecrets(t, get(h, "alice", path).body)
		}
	}
}

// Several APIs over one table: the first that lets the caller read decides
// what is shown, and one whose rule fails is passed over.
func TestExpandThroughSeveralAPIs(t *testing.T) {
	t.Parallel()
	db := openDB(t, librarySchema)
	h := serve(t, db,
		records.API{Name: "books", Table: "book", World: records.Read, Expand: []string{"author"}},
		records.API{Name: "nobody", Table: "author"},
		records.API{Name: "broken", Table: "author", World: records.Read, ReadRule: `abs(-9223372036854775808) = _ROW_.id`},
		records.API{Name: "members", Table: "author", Authenticated: records.Read, Exclude: []string{"phone", "owner"}},
		records.API{Name: "own", Table: "author", World: records.Read, ReadRule: `_ROW_.owner = 'bob'`, Exclude: []string{"phone", "name"}},
	)
	want(t, get(h, "alice", "/books/2?expand=author"), 200, `{"author":{"data":{"id":2,"name":"Bob"},"id":2},"id":2,"made_by":1,"sequel":1,"shelf":null,"title":"two"}`)
	want(t, get(h, "", "/books/2?expand=author"), 200, `{"author":{"data":{"id":2,"owner":"bob"},"id":2},"id":2,"made_by":1,"sequel":1,"shelf":null,"title":"two"}`)
	want(t, get(h, "", "/books/1?expand=author"), 200, `{"author":{"id":1},"id":1,"made_by":1,"sequel":null,"shelf":7,"title":"one"}`)
}

func TestExpandOfItself(t *testing.T) {
	t.Parallel()
	db := openDB(t, librarySchema)
	h := serve(t, db, records.API{Name: "books", Table: "book", World: records.Read, Expand: []string{"sequel"}, Exclude: []string{"author", "shelf", "made_by"}, ReadRule: `_ROW_.id <> 1 OR _USER_.id = 'alice'`})
	want(t, get(h, "alice", "/books/2?expand=sequel"), 200, `{"id":2,"sequel":{"data":{"id":1,"sequel":null,"title":"one"},"id":1},"title":"two"}`)
	want(t, get(h, "", "/books/2?expand=sequel"), 200, `{"id":2,"sequel":{"id":1},"title":"two"}`)
	p := list(t, h, "", "/books?expand=sequel&order=id")
	if got := fmt.Sprintf("%s", p.Records); got != `[{"id":2,"sequel":{"id":1},"title":"two"} {"id":3,"sequel":{"data":{"id":2,"sequel":1,"title":"two"},"id":2},"title":"three"}]` {
		t.Error(got)
	}
}
