package records_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/bedplate/bedplate/records"
)

const validateSchema = `
	CREATE TABLE parent (id INTEGER PRIMARY KEY, name TEXT) STRICT;
	CREATE TABLE t (
		id     INTEGER PRIMARY KEY,
		title  TEXT,
		mail   TEXT,
		stock  INTEGER,
		price  REAL,
		state  TEXT NOT NULL DEFAULT 'draft',
		tags   TEXT CHECK (jsonschema_matches('{"type":["array","string","number","object"]}', tags)),
		raw    BLOB,
		free   ANY,
		twice  INTEGER AS (stock * 2),
		_h     TEXT,
		ex     TEXT,
		parent INTEGER REFERENCES parent (id)
	) STRICT;
	INSERT INTO t (id, title) VALUES (1, 'first')`

func validateAPI(tags map[string]string) records.API {
	return records.API{Name: "t", Table: "t", World: everything, Exclude: []string{"ex"}, Validate: tags}
}

// What is refused, with which text; "" is what passes.
func TestValidate(t *testing.T) {
	t.Parallel()
	db := openDB(t, validateSchema)
	type post = [2]string
	for _, c := range []struct {
		tags  map[string]string
		posts []post // to create
		patch []post // to update
	}{
		{
			map[string]string{"title": "required,min=3,max=5"},
			[]post{
				{`{"title":"abc"}`, ""}, {`{"title":"äöü"}`, ""},
				{`{}`, "invalid title: required"}, {`{"title":null}`, "invalid title: required"}, {`{"title":""}`, "invalid title: required"},
				{`{"title":"ab"}`, "invalid title: min=3"}, {`{"title":"abcdef"}`, "invalid title: max=5"},
			},
			[]post{
				{`{}`, ""}, {`{"mail":"x"}`, ""}, {`{"title":"abcd"}`, ""},
				{`{"title":null}`, "invalid title: required"}, {`{"title":"ab"}`, "invalid title: min=3"},
			},
		},
		{
			map[string]string{"mail": "omitempty,max=40,email"},
			[]post{{`{}`, ""}, {`{"mail":null}`, ""}, {`{"mail":""}`, ""}, {`{"mail":"a@b.example"}`, ""}, {`{"mail":"<script>"}`, "invalid mail: email"}},
			[]post{{`{"mail":null}`, ""}, {`{"mail":"nobody"}`, "invalid mail: email"}},
		},
		{ // absent and NULL are the zero value; a 0 that is given is there
			map[string]string{"stock": "required,max=10", "price": "omitempty,min=0.5"},
			[]post{{`{"stock":0}`, ""}, {`{"stock":false}`, ""}, {`{}`, "invalid stock: required"}, {`{"stock":null}`, "invalid stock: required"}, {`{"stock":11}`, "invalid stock: max=10"}, {`{"stock":1,"price":0}`, "invalid price: min=0.5"}, {`{"stock":1,"price":null}`, ""}},
			nil,
		},
		{
			map[string]string{"stock": "min=1"},
			[]post{{`{}`, "invalid stock: min=1"}, {`{"stock":null}`, "invalid stock: min=1"}, {`{"stock":1}`, ""}},
			[]post{{`{"title":"abc"}`, ""}, {`{"stock":-1}`, "invalid stock: min=1"}},
		},
		{ // the database fills it in
			map[string]string{"state": "oneof=draft done 'in review'"},
			[]post{{`{}`, ""}, {`{"state":"done"}`, ""}, {`{"state":"in review"}`, ""}, {`{"state":"gone"}`, "invalid state: oneof=draft done 'in review'"}},
			[]post{{`{"state":"gone"}`, "invalid state: oneof=draft done 'in review'"}},
		},
		{map[string]string{"state": "required"}, []post{{`{}`, "invalid state: required"}, {`{"state":"x"}`, ""}}, []post{{`{}`, ""}}},
		{map[string]string{"id": "max=5"}, []post{{`{"id":7}`, "invalid id: max=5"}, {`{}`, ""}}, []post{{`{"id":1}`, ""}}},
		{
			map[string]string{"tags": "omitempty,max=3,unique,dive,required,max=4"},
			[]post{
				{`{}`, ""}, {`{"tags":null}`, ""}, {`{"tags":["a","b"]}`, ""},
				{`{"tags":["a","b","c","d"]}`, "invalid tags: max=3"}, {`{"tags":["a","a"]}`, "invalid tags: unique"},
				{`{"tags":["a","hello",""]}`, "invalid tags/1: max=4"},
				{`{"tags":[null]}`, "invalid tags/0: required"}, {`{"tags":[9]}`, "invalid tags/0: max=4"},
				{`{"tags":[{"a":"hello"}]}`, "invalid tags: type"}, {`{"tags":"x"}`, "invalid tags: type"}, {`{"tags":[[],{}]}`, "invalid tags: type"},
				{`{"tags":{"k":"hello"}}`, "invalid tags: max=4"},
			},
			nil,
		},
		{map[string]string{"raw": "max=2"}, []post{{`{"raw":[1,2]}`, ""}, {`{"raw":[1,2,3]}`, "invalid raw: max=2"}, {`{}`, ""}}, nil},
		{map[string]string{"free": "max=3"}, []post{{`{"free":3}`, ""}, {`{"free":"abc"}`, ""}, {`{"free":3.5}`, "invalid free: max=3"}, {`{"free":"abcd"}`, "invalid free: max=3"}, {`{"free":[1,2,3,4]}`, "invalid free: max=3"}}, nil},
		{map[string]string{"free": "datetime=2006-01-02"}, []post{{`{"free":"2026-01-02"}`, ""}, {`{"free":5}`, "invalid free: type"}, {`{"free":"x"}`, "invalid free: datetime=2006-01-02"}}, nil},
		{map[string]string{"title": "eq=a|eq=b"}, []post{{`{"title":"b"}`, ""}, {`{"title":"c"}`, "invalid title: eq|eq"}}, nil},
		{map[string]string{"title": "iscolor"}, []post{{`{"title":"#fff"}`, ""}, {`{"title":"c"}`, "invalid title: iscolor"}}, nil},
		{map[string]string{"title": "-"}, []post{{`{}`, ""}}, nil},
	} {
		h := serve(t, db, validateAPI(c.tags))
		judge := func(method, target string, all []post) {
			for _, p := range all {
				r := call(h, "", method, target, p[0])
				if p[1] == "" {
					wantStatus(t, r, 200)
				} else {
					want(t, r, 400, p[1])
				}
			}
		}
		judge("POST", "/t", c.posts)
		judge("PATCH", "/t/1", c.patch)
	}
	if n := one(t, db, `SELECT count(*) FROM t WHERE title = 'abcdef' OR stock = 11`); n != "0" {
		t.Errorf("%s refused rows are there", n)
	}
}

// Nothing is written of an array when one of its records is refused.
func TestValidateArray(t *testing.T) {
	t.Parallel()
	db := openDB(t, validateSchema)
	h := serve(t, db, validateAPI(map[string]string{"title": "required"}))
	before := dump(t, db)
	wantStatus(t, call(h, "", "POST", "/t", `[{"title":"a"},{"title":""}]`), 400)
	if after := dump(t, db); after != before {
		t.Errorf("%s\n%s", before, after)
	}
	wantStatus(t, call(h, "", "POST", "/t", "title=", "Content-Type", "application/x-www-form-urlencoded"), 400)
	wantStatus(t, call(h, "", "POST", "/t", "title=a", "Content-Type", "application/x-www-form-urlencoded"), 200)
}

// Access is decided before conditions are: who may not write learns nothing.
func TestValidateAfterAccess(t *testing.T) {
	t.Parallel()
	db := openDB(t, validateSchema)
	api := validateAPI(map[string]string{"title": "required"})
	api.World, api.Authenticated = records.Read, everything
	h := serve(t, db, api)
	want(t, call(h, "", "POST", "/t", `{}`), 403, "")
	want(t, call(h, "", "PATCH", "/t/1", `{"title":""}`), 403, "")
	want(t, call(h, "7", "POST", "/t", `{}`), 400, "invalid title: required")
}

// The answer in full, as problem details.
func TestValidateProblem(t *testing.T) {
	t.Parallel()
	db := openDB(t, `CREATE TABLE t (id INTEGER PRIMARY KEY, "a/b~ö" TEXT, n INTEGER, s TEXT, at TEXT) STRICT`)
	h := serve(t, db, records.API{Name: "t", Table: "t", World: everything, Validate: map[string]string{
		"a/b~ö": "max=1", "n": "omitempty,gt=5", "s": "required,oneof=x y", "at": "omitempty,datetime=15:04",
	}})
	r := call(h, "", "POST", "/t", `{"a/b~ö":"<script>alert(1)</script>","n":3,"at":"secret\r\nSet-Cookie: x"}`, "Accept", "application/problem+json")
	want(t, r, 400, `{"status":400,"title":"Bad Request","detail":"invalid a/b~ö: max=1; invalid at: datetime=15:04; invalid n: gt=5; invalid s: required","errors":[`+
		`{"pointer":"#/a~1b~0%C3%B6","code":"max","detail":"Must have at most 1 character."},`+
		`{"pointer":"#/at","code":"datetime","detail":"Must have the form 15:04."},`+
		`{"pointer":"#/n","code":"gt","detail":"Must be greater than 5."},`+
		`{"pointer":"#/s","code":"required","detail":"A value is needed."}]}`)
}

// A refusal never repeats what was sent, neither values nor names in JSON.
func TestValidateEchoesNothing(t *testing.T) {
	t.Parallel()
	db := openDB(t, validateSchema)
	type inner struct {
		Code string `json:"code" validate:"required,len=2"`
	}
	type row struct {
		Title *string          `json:"title" validate:"omitempty,alphanum,max=3"`
		Mail  string           `json:"mail" validate:"omitempty,email,nefield=Title"`
		Tags  map[string]inner `json:"tags" validate:"omitempty,dive,keys,max=2,endkeys"`
		Stock int8             `json:"stock" validate:"max=3"`
		Free  any              `json:"free" validate:"omitempty,email"`
	}
	tags := map[string]string{"title": "alphanum,max=3", "mail": "email", "tags": "dive,keys,max=2,endkeys,dive,max=1", "stock": "max=3", "free": "email"}
	bound := validateAPI(nil)
	bound.Bind = row{}
	for _, api := range []records.API{validateAPI(tags), bound} {
		h := serve(t, db, api)
		for _, body := range []string{
			`{"title":"tattle tattle","mail":"tattle","tags":{"tattle":{"code":"tattle"}},"stock":987654,"free":"tattle"}`,
			`{"title":"tattle tattle","mail":"tattle","tags":["tattle"],"free":987654}`,
			`{"tags":"tattle"}`, `{"tags":{"0].tattle[":{"tattle":["tattle"]}}}`,
		} {
			for _, accept := range []string{"*/*", "application/problem+json"} {
				r := call(h, "", "POST", "/t", body, "Accept", accept)
				if r.status != 400 || strings.Contains(r.body, "tattle") || strings.Contains(r.body, "987654") || strings.Contains(r.body, "alidat") {
					t.Errorf("%s: %v", body, r)
				}
			}
		}
	}
}

// The number of errors and what they take is bounded, whatever is sent.
func TestValidateManyErrors(t *testing.T) {
	t.Parallel()
	db := openDB(t, validateSchema)
	h := serve(t, db, validateAPI(map[string]string{"tags": "dive,max=1"}))
	r := call(h, "", "POST", "/t", `{"tags":["xx"`+strings.Repeat(`,"xx"`, 900)+`]}`, "Accept", "application/problem+json")
	var p struct {
		Detail string
		Errors []any
	}
	if err := json.Unmarshal([]byte(r.body), &p); err != nil || r.status != 400 || len(p.Errors) != 64 || strings.Count(p.Detail, ";") != 7 {
		t.Errorf("%v %d %q", err, len(p.Errors), p.Detail)
	}
}

// What is judged of JSON is bounded, and what looks like more of it in text is
// text.
func TestValidateBoundsOfJSON(t *testing.T) {
	t.Parallel()
	db := openDB(t, validateSchema)
	type row struct {
		Tags any `json:"tags" validate:"omitempty,dive,max=1000000"`
	}
	bound := validateAPI(nil)
	bound.Bind = row{}
	name := strings.Repeat("n", 256)
	for _, api := range []records.API{validateAPI(map[string]string{"tags": "dive,max=1000000"}), bound} {
		h := serve(t, db, api)
		for _, c := range []struct {
			tags string
			ok   bool
		}{
			{`[5` + strings.Repeat(`,5`, 999) + `]`, true},
			{`[5` + strings.Repeat(`,5`, 1000) + `]`, false},
			{`["[` + strings.Repeat(`,{\"`, 5000) + `"]`, true},
			{`{"` + name + `":1}`, true},
			{`{"` + name + `n":1}`, false},
			{`{"a":"` + name + name + `","b":{}}`, true},
			{`{"\\":"` + name + name + `"}`, true},
			{`{"` + name + `":[5` + strings.Repeat(`,5`, 400) + `]}`, true},
			{`{"` + name + `":[5` + strings.Repeat(`,5`, 600) + `]}`, false},
		} {
			r := call(h, "", "POST", "/t", `{"tags":`+c.tags+`}`)
			if c.ok {
				wantStatus(t, r, 200)
			} else {
				want(t, r, 400, "invalid tags: type")
			}
		}
	}
}

// The bounds are of what is judged: a field without conditions has none.
func TestBindUnjudgedJSON(t *testing.T) {
	t.Parallel()
	type row struct {
		Tags  []int  `json:"tags"`
		Title string `json:"title" validate:"max=3"`
	}
	api := validateAPI(nil)
	api.Bind = row{}
	h := serve(t, openDB(t, validateSchema), api)
	wantStatus(t, call(h, "", "POST", "/t", `{"tags":[5`+strings.Repeat(`,5`, 5000)+`]}`), 200)
	want(t, call(h, "", "POST", "/t", `{"tags":["x"]}`), 400, "invalid tags: type")
}

// All mistakes are told at once, each with its API and its place.
func TestValidateMistakes(t *testing.T) {
	t.Parallel()
	db := openDB(t, validateSchema+`; CREATE VIEW seen AS SELECT id, title FROM t`)
	for _, c := range []struct {
		column, tag, want string
	}{
		{"nope", "required", `no column "nope"`},
		{"TITLE", "required", `no column "TITLE"`},
		{"ex", "required", `no column "ex"`},
		{"_h", "required", "hidden"},
		{"twice", "required", "generated"},
		{"title", "nosuch", `tag "nosuch": Undefined validation function 'nosuch'`},
		{"title", "max=3,nosuch=5", "nosuch"},
		{"title", "required,,max=3", `Invalid validation tag`},
		{"title", "max=x", "max=x"},
		{"title", "max", "max"},
		{"title", "dive,max=3", "has no elements"},
		{"title", "keys,max=3,endkeys", "keys"},
		{"title", "unique", "elements"},
		{"title", "eqfield=Mail", "Bind"},
		{"title", "omitempty,required_with=Mail", "Bind"},
		{"title", "max=3|gtcsfield=Mail", "Bind"},
		{"title", "omitempty,file", "file system"},
		{"title", "max=3|dir", "file system"},
		{"title", "uds_exists", "file system"},
		{"tags", "dive,image", "file system"},
		{"tags", "dive,nosuch", "nosuch"},
		{"stock", "email", "no meaning"},
		{"stock", "max=3|email", "no meaning"},
		{"stock", "datetime=2006", "no meaning"},
		{"stock", "max=1.5", "max=1.5"},
		{"price", "oneof=1.5 2.5", "oneof"},
		{"raw", "uuid", "no meaning"},
		{"free", "nosuch", "nosuch"},
	} {
		_, err := tryServe(db, validateAPI(map[string]string{c.column: c.tag, "mail": "nosuch2"}))
		switch {
		case err == nil:
			t.Errorf("%s %q: no error", c.column, c.tag)
		case !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), `api "t"`) || !strings.Contains(err.Error(), `"`+c.column+`"`) || !strings.Contains(err.Error(), "nosuch2") || strings.Contains(err.Error(), "field ''"):
			t.Errorf("%s %q: %v, want %q", c.column, c.tag, err, c.want)
		}
	}
	if _, err := tryServe(db, records.API{Name: "v", Table: "seen", World: records.Read, Validate: map[string]string{"title": "max=3"}}); err == nil || !strings.Contains(err.Error(), "view") {
		t.Error(err)
	}
}

func TestValidateConcurrently(t *testing.T) {
	t.Parallel()
	send := boundHandler(t)
	var wg sync.WaitGroup
	for i := range 200 {
		wg.Go(func() {
			body, text := fmt.Sprintf(`{"title":"%d","made":"2026-01-02","stock":%d,"most":%d,"lines":[{"text":"x"}]}`, i, i, i), ""
			if i%2 == 0 {
				body, text = fmt.Sprintf(`{"title":"%d","made":"x%d","stock":%d,"lines":[{"text":"x"},{"text":"long"}]}`, i, i, i+1), "invalid stock: ltefield=most; invalid lines/1/text: max=3; invalid made: datetime=2006-01-02"
			}
			if r := send("POST", "/t", body); text != "" && (r.status != 400 || r.body != text) || text == "" && r.status != 200 {
				t.Errorf("%s: %v", body, r)
			}
		})
	}
	wg.Wait()
}

// A column that is filled with the caller's id is there.
func TestValidateAutofilledUser(t *testing.T) {
	t.Parallel()
	db := openDB(t, `CREATE TABLE _user (id INTEGER PRIMARY KEY) STRICT; INSERT INTO _user VALUES (7);
		CREATE TABLE t (id INTEGER PRIMARY KEY, author INTEGER REFERENCES _user (id)) STRICT`)
	h := serve(t, db, records.API{Name: "t", Table: "t", World: everything, AutofillUser: true, Validate: map[string]string{"author": "required"}})
	wantStatus(t, call(h, "7", "POST", "/t", `{}`), 200)
	want(t, call(h, "", "POST", "/t", `{}`), 400, "invalid author: required")
}
