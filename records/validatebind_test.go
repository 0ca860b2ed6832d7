package records_test

import (
	"encoding/json"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/bedplate/bedplate/records"
)

type validated struct {
	ID     int64            `json:"id"`
	Title  *string          `json:"title" validate:"required,max=5"`
	Mail   string           `json:"mail" validate:"omitempty,email"`
	Stock  int64            `json:"stock" validate:"ltefield=Most"`
	Most   int64            `json:"most"`
	From   time.Time        `json:"from"`
	Until  *time.Time       `json:"until" validate:"omitempty,gtfield=From"`
	Where  netip.Addr       `json:"addr"`
	Lines  []validatedLine  `json:"lines" validate:"max=2,dive"`
	Home   validatedHome    `json:"home" validate:"omitempty"`
	Notes  map[string]int   `json:"notes" validate:"dive,max=9"`
	Level  uint8            `json:"level" validate:"max=200"`
	Key    [4]byte          `json:"key"`
	Reason string           `json:"reason" validate:"required_if=Level 7"`
	Extra  *json.RawMessage `json:"extra"`
	Secret string           `json:"_secret"`
	Gone   string           `json:"gone"`
	Sum    int64            `json:"sum"`
	Mode   string           `json:"mode" validate:"omitempty,nefield=Mail"`
	Memory int              `json:"-"`
	validatedBase
}

type validatedBase struct {
	Made string `json:"made" validate:"required,datetime=2006-01-02"`
}

type validatedLine struct {
	Text string `json:"text" validate:"required,max=3"`
	Sub  []int  `json:"sub" validate:"dive,max=9"`
}

type validatedHome struct {
	Street string `json:"street" validate:"required,max=5"`
	ZIP    string `validate:"omitempty,numeric"`
}

const boundSchema = `CREATE TABLE t (
	id INTEGER PRIMARY KEY, title TEXT, mail TEXT, stock INTEGER, most INTEGER, "from" TEXT, until TEXT, addr TEXT,
	lines TEXT CHECK (jsonschema_matches('{}', lines)), home TEXT CHECK (jsonschema_matches('{}', home)), notes TEXT CHECK (jsonschema_matches('{}', notes)),
	level INTEGER, key BLOB, reason TEXT, extra TEXT CHECK (jsonschema_matches('{}', extra)), _secret TEXT, gone TEXT, sum INTEGER AS (stock + most), mode TEXT DEFAULT 'x', made TEXT, more TEXT
	) STRICT;
	INSERT INTO t (id) VALUES (1)`

func boundHandler(t testing.TB) func(method, target, body string) response {
	h := serve(t, openDB(t, boundSchema), records.API{Name: "t", Table: "t", World: everything, Exclude: []string{"gone"}, Bind: (*validated)(nil)})
	return func(method, target, body string) response { return call(h, "", method, target, body) }
}

func TestBind(t *testing.T) {
	t.Parallel()
	send := boundHandler(t)
	full := func(more string) string { return `{"title":"abc","made":"2026-01-02"` + more + `}` }
	for _, c := range [][2]string{
		{full(``), ""},
		{`{}`, "invalid title: required; invalid made: required"},
		{full(`,"title":""`), "Invalid"}, // twice
		{`{"title":"","made":"2026-01-02"}`, ""},
		{`{"title":"abcdef","made":"x"}`, "invalid title: max=5; invalid made: datetime=2006-01-02"},
		{full(`,"mail":"x"`), "invalid mail: email"},
		{full(`,"stock":3,"most":2`), "invalid stock: ltefield=most"},
		{full(`,"stock":3`), "invalid stock: ltefield=most"},
		{full(`,"stock":3,"most":3`), ""},
		{full(`,"from":"2026-01-02T00:00:00Z","until":"2026-01-01T00:00:00Z"`), "invalid until: gtfield=from"},
		{full(`,"from":"2026-01-01T00:00:00Z","until":"2026-01-01T00:00:01Z"`), ""},
		{full(`,"from":"yesterday"`), "invalid from: type"},
		{full(`,"addr":"::1"`), ""},
		{full(`,"addr":"localhost"`), "invalid addr: type"},
		{full(`,"lines":[{"text":"a"},{"text":"abcd","sub":[1,10]}]`), "invalid lines/1/text: max=3; invalid lines/1/sub/1: max=9"},
		{full(`,"lines":[{},{},{}]`), "invalid lines: max=2"},
		{full(`,"lines":{"text":"a"}`), "invalid lines: type"},
		{full(`,"lines":[{"text":"abcd","Text":"a"}]`), "invalid lines/0/text: max=3"},
		{full(`,"lines":[{"TEXT":"a"}]`), "invalid lines/0/text: required"},
		{full(`,"home":null`), ""},
		{full(`,"home":{"street":"abcdef","ZIP":"x"}`), "invalid home/street: max=5; invalid home/ZIP: numeric"},
		{full(`,"home":{"street":"abc","zip":"x"}`), ""},
		{full(`,"home":{}`), "invalid home/street: required"},
		{full(`,"notes":{"a":10}`), "invalid notes: max=9"},
		{full(`,"notes":{"a":"x"}`), "invalid notes: type"},
		{full(`,"level":201`), "invalid level: max=200"},
		{full(`,"level":256`), "invalid level: type"},
		{full(`,"level":-1`), "invalid level: type"},
		{full(`,"level":7`), "invalid reason: required_if"},
		{full(`,"level":7,"reason":"r"`), ""},
		{full(`,"key":[1,2,3]`), "invalid key: type"},
		{full(`,"key":[1,2,3,4]`), ""},
		{full(`,"extra":{"a":[1]},"_secret":"s","more":"m"`), ""},
		{full(`,"mode":"a@b.example","mail":"a@b.example"`), "invalid mode: nefield=mail"},
	} {
		r := send("POST", "/t", c[0])
		switch {
		case c[1] == "":
			wantStatus(t, r, 200)
		case c[1] == "Invalid":
			wantStatus(t, r, 400)
		default:
			want(t, r, 400, c[1])
		}
	}
}

// A name in another case is not the field, also when the struct has an
// unexported one of that name.
func TestBindFoldedNames(t *testing.T) {
	t.Parallel()
	type inner struct {
		Text string `json:"text" validate:"required,max=3"`
		tEXT string //nolint:unused // it is about fields that are not decoded
	}
	type row struct {
		Home inner `json:"home" validate:"omitempty"`
	}
	h := serve(t, openDB(t, boundSchema), records.API{Name: "t", Table: "t", World: everything, Bind: row{}})
	want(t, call(h, "", "POST", "/t", `{"home":{"TEXT":"abc"}}`), 400, "invalid home/text: required")
	want(t, call(h, "", "POST", "/t", `{"home":{"text":"abcd","TEXT":"abc"}}`), 400, "invalid home/text: max=3")
	want(t, call(h, "", "POST", "/t", `{"home":{"tEXT":"abc"}}`), 400, "invalid home/text: required")
}

// Of what a column is compared with only names are told that callers know.
func TestBindHiddenComparison(t *testing.T) {
	t.Parallel()
	type row struct {
		Secret string `json:"_secret"`
		Most   int64  `json:"most"`
		Mode   string `json:"mode" validate:"omitempty,nefield=Secret"`
		Stock  int64  `json:"stock" validate:"ltefield=Most"`
	}
	h := serve(t, openDB(t, boundSchema), records.API{Name: "t", Table: "t", World: everything, Bind: row{}})
	for _, accept := range []string{"*/*", "application/problem+json"} {
		r := call(h, "", "POST", "/t", `{"mode":"a","_secret":"a","stock":2,"most":1}`, "Accept", accept)
		if r.status != 400 || !strings.Contains(r.body, "invalid mode: nefield; invalid stock: ltefield=most") || strings.Contains(strings.ToLower(r.body), "secret") {
			t.Error(r)
		}
	}
}

// An update is judged by what it gives: what compares columns needs all of
// them, and the rest of the same tag counts all the same.
func TestBindUpdate(t *testing.T) {
	t.Parallel()
	send := boundHandler(t)
	for _, c := range [][2]string{
		{`{}`, ""}, {`{"mail":"a@b.example"}`, ""}, {`{"stock":100}`, ""}, {`{"most":0}`, ""}, {`{"level":7}`, ""},
		{`{"until":"2000-01-01T00:00:00Z"}`, ""}, {`{"from":"2030-01-01T00:00:00Z"}`, ""},
		{`{"title":null}`, "invalid title: required"},
		{`{"stock":3,"most":2}`, "invalid stock: ltefield=most"},
		{`{"level":7,"reason":""}`, "invalid reason: required_if"},
		{`{"reason":""}`, ""},
		{`{"home":{"street":""}}`, "invalid home/street: required"},
		{`{"lines":[{"text":"abcd"}]}`, "invalid lines/0/text: max=3"},
		{`{"until":"x"}`, "invalid until: type"},
	} {
		r := send("PATCH", "/t/1", c[0])
		if c[1] == "" {
			wantStatus(t, r, 200)
		} else {
			want(t, r, 400, c[1])
		}
	}
}

// boundPanics has a method that a tag may call.
type boundPanics string

func (boundPanics) Validate() error { panic("tell_tale") }

func TestBindMistakes(t *testing.T) {
	t.Parallel()
	db := openDB(t, boundSchema)
	type named string
	type inner struct {
		A string `json:"a" validate:"nosuch"`
	}
	type deep struct {
		Inner map[string][]*inner `json:"inner"`
	}
	type far struct {
		A int `json:"a" validate:"gtcsfield=Stock"`
	}
	for _, c := range []struct {
		bind any
		want []string
	}{
		{5, []string{"int is not a struct"}},
		{[]int{}, []string{"not a struct"}},
		{struct {
			A     string `json:"nope"`
			B     string `json:"gone" validate:"max=3"`
			C     string `json:"_secret" validate:"max=3"`
			D     int64  `json:"sum" validate:"max=3"`
			E     string `json:"-" validate:"max=3"`
			F     int    `json:"title"`
			Title string
		}{}, []string{`no column "nope"`, `field B: no column "gone"`, "field C: it is hidden", "field D: it is generated", "field E: it has a validate tag but is no column", `field F: a int cannot hold column "title"`, `no column "Title"`}},
		{struct {
			A chan int `json:"home"`
			B []int    `json:"key"`
			C float64  `json:"stock"`
			D string   `json:"title"`
		}{}, []string{"chan int cannot hold", "[]int cannot hold", "float64 cannot hold"}},
		{reflect.Zero(reflect.StructOf([]reflect.StructField{
			{Name: "A", Type: reflect.TypeFor[string](), Tag: `json:"title"`}, {Name: "B", Type: reflect.TypeFor[string](), Tag: `json:"title"`},
		})).Interface(), []string{`field B: column "title" is field A already`}},
		{struct {
			A string `json:"title" validate:"nosuch"`
			B int64  `json:"stock" validate:"email"`
			C string `json:"mail" validate:"eqfield=Nope"`
			D string `json:"mode" validate:"max=3,eqfield=B"`
			E string `json:"reason" validate:"required_if=A"`
			F string `json:"more" validate:"omitempty,filepath"`
			g string `validate:"max=3"` //nolint:unused // what is refused
		}{}, []string{"nosuch", "email has no meaning", "no field Nope", "a string is compared with a int64", "Bad param number", "file system", "field g: it has a validate tag but is not exported"}},
		{struct {
			Deep deep `json:"home"`
		}{}, []string{"field A of records_test.inner", "nosuch"}},
		{struct {
			Stock int `json:"stock"`
			Far   far `json:"home"`
		}{}, []string{"across structs"}},
		{struct {
			*validatedBase
		}{}, []string{"a pointer cannot be embedded"}},
		{struct {
			A boundPanics `json:"title" validate:"validateFn"`
		}{}, []string{"tell_tale"}},
		{struct {
			A named `json:"title" validate:"max=3,dive"`
		}{}, []string{"no elements"}},
	} {
		_, err := tryServe(db, records.API{Name: "t", Table: "t", World: everything, Exclude: []string{"gone"}, Bind: c.bind})
		for _, w := range c.want {
			if err == nil || !strings.Contains(err.Error(), w) || !strings.Contains(err.Error(), `api "t": bind: `) {
				t.Errorf("%T: want %q in\n%v", c.bind, w, err)
			}
		}
	}
	_, err := tryServe(db, records.API{Name: "t", Table: "t", World: everything, Exclude: []string{"gone"}, Bind: validated{}, Validate: map[string]string{"title": "max=3"}})
	if err == nil || !strings.Contains(err.Error(), "Validate already") {
		t.Error(err)
	}
}

// A struct without a tag of its own is judged by those inside.
func TestBindUntaggedStruct(t *testing.T) {
	t.Parallel()
	type row struct {
		Home *validatedHome `json:"home"`
		Note validatedLine  `json:"notes"`
	}
	h := serve(t, openDB(t, boundSchema), records.API{Name: "t", Table: "t", World: everything, Bind: &row{}})
	want(t, call(h, "", "POST", "/t", `{"home":{},"notes":{"text":"a"}}`), 400, "invalid home/street: required")
	want(t, call(h, "", "POST", "/t", `{"notes":{"text":"abcd"}}`), 400, "invalid notes/text: max=3")
	want(t, call(h, "", "POST", "/t", `{}`), 400, "invalid notes/text: required")
	wantStatus(t, call(h, "", "POST", "/t", `{"notes":{"text":"a"}}`), 200)
	wantStatus(t, call(h, "", "PATCH", "/t/1", `{"home":null}`), 200)
}
