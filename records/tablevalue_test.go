package records_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"encoding/hex"
	"encoding/json"
	"errors"
	"math"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bedplate/bedplate/records"
)

type colour struct{ name string }

func (c colour) MarshalText() ([]byte, error) { return []byte(c.name), nil }
func (c *colour) UnmarshalText(b []byte) error {
	if c.name = string(b); c.name == "none" {
		return errors.New("not a colour")
	}
	return nil
}

type everyType struct {
	ID       records.UUID    `json:"id"`
	Small    int8            `json:"small"`
	Big      uint64          `json:"big"`
	Flag     bool            `json:"flag"`
	Real     float32         `json:"real"`
	Text     string          `json:"text"`
	Maybe    *string         `json:"maybe"`
	Null     sql.NullString  `json:"null"`
	Generic  sql.Null[int64] `json:"generic"`
	Bytes    []byte          `json:"bytes"`
	Array    [4]byte         `json:"array"`
	Other    *records.UUID   `json:"other"`
	Moment   time.Time       `json:"moment"`
	Seconds  *time.Time      `json:"seconds"`
	NullTime sql.NullTime    `json:"null_time"`
	Address  netip.Addr      `json:"address"`
	Colour   *colour         `json:"colour"`
	Tags     []string        `json:"tags"`
	Raw      json.RawMessage `json:"raw"`
	Place    string          `json:"place"`
	WKB      []byte          `json:"wkb"`
	Any      any             `json:"any"`
	Double   int64           `json:"double"`
}

const everySchema = `CREATE TABLE e (
	id BLOB PRIMARY KEY NOT NULL DEFAULT (uuid_v7()) CHECK (is_uuid(id)), small INTEGER, big INTEGER, flag INTEGER, real REAL, text TEXT,
	maybe TEXT, "null" TEXT, generic INTEGER, bytes BLOB, array BLOB, other BLOB CHECK (is_uuid(other)), moment TEXT, seconds INTEGER, null_time TEXT,
	address TEXT, colour TEXT, tags TEXT CHECK (jsonschema_matches('{"type":["array","null"]}', tags)), raw TEXT CHECK (jsonschema_matches('{}', raw)),
	place BLOB CHECK (ST_IsValid(place)), wkb BLOB CHECK (ST_IsValid(wkb)), "any" ANY, double INTEGER AS (small * 2)) STRICT`

func everyValue() everyType {
	text, other, c, seconds := "", records.UUID{6: 0x40, 8: 0x80, 15: 9}, colour{"red"}, time.Unix(1_700_000_000, 0).UTC()
	return everyType{
		Small: -128, Big: math.MaxInt64, Flag: true, Real: 0.1, Text: "ä\"\\\n<", Maybe: &text, Null: sql.NullString{String: "x", Valid: true},
		Generic: sql.Null[int64]{V: 3, Valid: true}, Bytes: []byte{}, Array: [4]byte{1, 2, 3, 255}, Other: &other,
		Moment:  time.Date(2024, 2, 29, 23, 59, 59, 120e6, time.UTC),
		Seconds: &seconds, NullTime: sql.NullTime{Time: time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC), Valid: true},
		Address: netip.MustParseAddr("::1"), Colour: &c, Tags: []string{"a", "b<"}, Raw: json.RawMessage(`{"a":[1,null]}`),
		Place: `{"type":"Point","coordinates":[1.5,2]}`, Any: int64(5), Double: -256,
	}
}

func TestTableValues(t *testing.T) {
	t.Parallel()
	db := openDB(t, everySchema)
	svc := newService(t, db, records.API{Name: "e", Table: "e", World: everything})
	table := tableOf[everyType](t, svc, "e")
	ctx := context.Background()
	for name, v := range map[string]everyType{"full": everyValue(), "zero": {}} {
		id, err := table.Insert(ctx, v)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		v.ID = id.(records.UUID)
		if name == "zero" {
			v.Place, v.Tags, v.Raw, v.Double = "", nil, nil, 0
		}
		got, err := table.Get(ctx, id)
		if err != nil || !reflect.DeepEqual(got, v) {
			t.Errorf("%s: %v\n got %+v\nwant %+v", name, err, got, v)
		}
		if again, err := table.Get(ctx, v.ID.String()); err != nil || !reflect.DeepEqual(again, v) {
			t.Errorf("%s by text: %+v, %v", name, again, err)
		}
		wantIs(t, "update", table.Update(ctx, v.ID, got), nil)
		if again, err := table.Get(ctx, [16]byte(v.ID)); err != nil || !reflect.DeepEqual(again, v) {
			t.Errorf("%s after an update: %v\n got %+v\nwant %+v", name, err, again, v)
		}
	}
	if got := one(t, db, `SELECT moment || typeof(seconds) || typeof(flag) || raw || tags FROM e WHERE small < 0`); got != `2024-02-29T23:59:59.120Zintegerinteger{"a":[1,null]}["a","b<"]` {
		t.Error(got)
	}
	page, err := table.List(ctx, records.Query{Filter: records.Where("moment", "=", everyValue().Moment)})
	if err != nil || len(page.Records) != 1 || page.Records[0].Small != -128 {
		t.Errorf("%+v, %v", page, err)
	}
}

// A digest has a binary form, as a Valuer, and a textual one.
type digest []byte

func (d digest) Value() (driver.Value, error) {
	if d == nil {
		return nil, nil
	}
	return []byte(d), nil
}

func (d *digest) Scan(v any) error {
	b, ok := v.([]byte)
	if !ok {
		return errors.New("not bytes")
	}
	*d = digest(b)
	return nil
}

func (d digest) MarshalText() ([]byte, error) { return []byte(hex.EncodeToString(d)), nil }

func (d *digest) UnmarshalText(text []byte) (err error) {
	*d, err = hex.DecodeString(string(text))
	return err
}

// Bytes that are also texts are whichever of them the column is, also as a key
// and in a filter.
func TestTableTextualBytes(t *testing.T) {
	t.Parallel()
	type row struct {
		ID     records.UUID  `json:"id"`
		Other  *records.UUID `json:"other"`
		Third  records.UUID  `json:"third"`
		Digest digest        `json:"digest"`
		Raw    digest        `json:"raw"`
	}
	db := openDB(t, `CREATE TABLE t (id TEXT PRIMARY KEY NOT NULL, other TEXT, third BLOB, digest TEXT, raw BLOB) STRICT`)
	table := tableOf[row](t, newService(t, db, records.API{Name: "t", Table: "t", World: everything}), "t")
	ctx := context.Background()
	u, v := records.UUID{6: 0x40, 8: 0x80, 15: 1}, records.UUID{6: 0x40, 8: 0x80, 15: 2}
	for _, r := range []row{{u, &v, u, digest{1, 255}, digest{1, 255}}, {ID: v}} {
		id, err := table.Insert(ctx, r)
		if err != nil || id != r.ID.String() {
			t.Fatalf("%v, %v", id, err)
		}
		for _, key := range []any{r.ID, &r.ID, r.ID.String()} {
			if got, err := table.Get(ctx, key); err != nil || !reflect.DeepEqual(got, r) {
				t.Errorf("%v: %+v, %v, want %+v", key, got, err, r)
			}
		}
	}
	const want = "AAAAAAAAQACAAAAAAAAAAQ== AAAAAAAAQACAAAAAAAAAAg== blob 01ff x'01FF'"
	if got := one(t, db, `SELECT concat_ws(' ', id, other, typeof(third), digest, quote(raw)) FROM t WHERE other IS NOT NULL`); !strings.EqualFold(got, want) {
		t.Errorf("got %s, want %s", got, want)
	}
	if got := one(t, db, `SELECT id FROM t WHERE other IS NULL AND digest IS NULL AND raw IS NULL`); got != v.String() {
		t.Errorf("of the second one: %s", got)
	}
	for column, value := range map[string]any{"id": u, "other": &v, "third": u, "digest": digest{1, 255}, "raw": digest{1, 255}} {
		page, err := table.List(ctx, records.Query{Filter: records.Where(column, "=", value)})
		if err != nil || len(page.Records) != 1 || page.Records[0].ID != u {
			t.Errorf("%s: %+v, %v", column, page, err)
		}
	}
	page, err := table.List(ctx, records.Query{Filter: records.Where("id", "in", []records.UUID{u, v})})
	if err != nil || len(page.Records) != 2 {
		t.Errorf("%+v, %v", page, err)
	}
	wantIs(t, "update", table.Update(ctx, u, row{Third: v}, "third"), nil)
	wantIs(t, "delete", table.Delete(ctx, u), nil)
}

// A value that a request could not give is refused, with the name of its column.
func TestTableRefusesValues(t *testing.T) {
	t.Parallel()
	db := openDB(t, everySchema)
	svc := newService(t, db, records.API{Name: "e", Table: "e", World: everything})
	table := tableOf[everyType](t, svc, "e")
	for column, change := range map[string]func(*everyType){
		"text":   func(v *everyType) { v.Text = "a\x00b" },
		"maybe":  func(v *everyType) { s := "\xff"; v.Maybe = &s },
		"null":   func(v *everyType) { v.Null.String = "\x00" },
		"big":    func(v *everyType) { v.Big = math.MaxInt64 + 1 },
		"real":   func(v *everyType) { v.Real = float32(math.NaN()) },
		"moment": func(v *everyType) { v.Moment = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC) },
		"tags":   func(v *everyType) { v.Tags = []string{"\x00"} },
		"raw":    func(v *everyType) { v.Raw = json.RawMessage(`{`) },
		"place":  func(v *everyType) { v.Place = "POINT" },
		"any":    func(v *everyType) { v.Any = make(chan int) },
		"colour": func(v *everyType) { v.Colour.name = "\x00" },
	} {
		v := everyValue()
		change(&v)
		_, err := table.Insert(context.Background(), v)
		var refused *records.Error
		if !errors.As(err, &refused) || refused.Status != 400 || len(refused.Fields) != 1 || refused.Fields[0].Pointer != "/"+column {
			t.Errorf("%s: %v", column, err)
		}
	}
	if got := one(t, db, `SELECT count(*) FROM e`); got != "0" {
		t.Errorf("%s rows", got)
	}
	// What is in the database and does not fit is an error, not something else.
	for column, value := range map[string]string{
		"small": "128", "big": "-1", "flag": "2", "real": "1e300", "array": "x'00'", "moment": "'soon'", "address": "'x'", "tags": `'[1]'`, "colour": "'none'",
	} {
		execSQL(t, db, `INSERT INTO e (id, text, `+column+`) VALUES (x'00000000000040008000000000000001', 'private', `+value+`)`)
		_, err := table.Get(context.Background(), records.UUID{6: 0x40, 8: 0x80, 15: 1})
		var failed *records.Error
		if !errors.As(err, &failed) || failed.Status != 500 || failed.Text != "" || !strings.Contains(err.Error(), column) {
			t.Errorf("%s: %v", column, err)
		}
		if _, err := table.List(context.Background(), records.Query{}); err == nil {
			t.Errorf("%s: listed", column)
		}
		execSQL(t, db, `DELETE FROM e`)
	}
}

func TestTableReadsTimes(t *testing.T) {
	t.Parallel()
	db := openDB(t, `CREATE TABLE t (id INTEGER PRIMARY KEY, at TIMESTAMP);
		INSERT INTO t (at) VALUES ('2024-05-06 07:08:09'), ('2024-05-06'), ('2024-05-06T07:08:09+02:00'), (0), (NULL), ('2024-05-06 07:08:09.5')`)
	type row struct {
		ID int       `json:"id"`
		At time.Time `json:"at"`
	}
	table := tableOf[row](t, newService(t, db, records.API{Name: "t", Table: "t", World: everything}), "t")
	page, err := table.List(context.Background(), records.Query{Order: []string{"id"}})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, r := range page.Records {
		got = append(got, r.At.Format(time.RFC3339Nano))
	}
	want := []string{"2024-05-06T07:08:09Z", "2024-05-06T00:00:00Z", "2024-05-06T05:08:09Z", "1970-01-01T00:00:00Z", "0001-01-01T00:00:00Z", "2024-05-06T07:08:09.5Z"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestUUID(t *testing.T) {
	t.Parallel()
	id := records.UUID{0xff, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}
	for _, text := range []string{id.String(), "ff010203-0405-0607-0809-0a0b0c0d0e0f"} {
		if got, err := records.ParseUUID(text); err != nil || got != id {
			t.Errorf("%s: %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "ff010203040506070809a0b0c0d0e0f", strings.TrimRight(id.String(), "="), id.String() + "=", "AAAA"} {
		if got, err := records.ParseUUID(text); err == nil {
			t.Errorf("%q: %v", text, got)
		}
	}
	b, err := json.Marshal(map[string]any{"id": id})
	if err != nil || string(b) != `{"id":"`+id.String()+`"}` {
		t.Errorf("%s, %v", b, err)
	}
	var back struct{ ID records.UUID }
	if err := json.Unmarshal(b, &back); err != nil || back.ID != id {
		t.Errorf("%v, %v", back, err)
	}
	var scanned records.UUID
	for _, v := range []any{id[:], id.String()} {
		if err := scanned.Scan(v); err != nil || scanned != id {
			t.Errorf("%v, %v", scanned, err)
		}
	}
	for _, v := range []any{nil, id[1:], "x", 5} {
		if scanned.Scan(v) == nil {
			t.Errorf("%v: %v", v, scanned)
		}
	}
}
