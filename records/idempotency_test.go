package records_test

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bedplate/bedplate/records"
)

func TestIdempotencyKey(t *testing.T) {
	t.Parallel()
	db := openDB(t, `CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT UNIQUE) STRICT`)
	var clock atomic.Int64
	clock.Store(1_700_000_000)
	h := withBatches(t, db, records.Config{
		APIs: []records.API{{Name: "t", Table: "t", World: everything}, {Name: "u", Table: "t", World: everything}, {Name: "members", Table: "t", Authenticated: everything}},
		Now:  func() time.Time { return time.Unix(clock.Load(), 0) },
	})
	post := func(who, target, body, key string) response {
		return call(h, who, "POST", target, body, "Idempotency-Key", key)
	}
	rows := func() string { return one(t, db, `SELECT count(*) FROM t`) }

	first := post("1", "/t", `[{"v":"a"},{"v":"b"}]`, "k1")
	want(t, first, 200, `{"ids":["1","2"]}`)
	again := post("1", "/t", `[{"v":"a"},{"v":"b"}]`, "k1")
	if again.same() != first.same() || rows() != "2" {
		t.Errorf("again: %v, %s rows", again, rows())
	}
	want(t, post("1", "/t", `{"v":"c"}`, "k1"), 422, "Idempotency-Key was used for another request")

	// Keys are the caller's and the API's own.
	want(t, post("2", "/t", `{"v":"d"}`, "k1"), 200, `{"ids":["3"]}`)
	want(t, post("", "/t", `{"v":"e"}`, "k1"), 200, `{"ids":["4"]}`)
	want(t, post("1", "/u", `{"v":"f"}`, "k1"), 200, `{"ids":["5"]}`)
	want(t, post("1", "/members", `{"v":"g"}`, "k2"), 200, `{"ids":["6"]}`)
	want(t, post("", "/members", `{"v":"g"}`, "k2"), 403, "") // not even what was answered

	// A request that failed has not taken place.
	want(t, post("1", "/t", `{"v":"a"}`, "k3"), 400, "db constraint: unique")
	execSQL(t, db, `DELETE FROM t WHERE v = 'a'`)
	want(t, post("1", "/t", `{"v":"a"}`, "k3"), 200, `{"ids":["7"]}`)
	want(t, post("1", "/t", `{"v":"a"}`, "k3"), 200, `{"ids":["7"]}`)

	op := `{"Create":{"api_name":"t","value":{"v":"h"}}}`
	done := execute(h, "1", op, "Idempotency-Key", "k1")
	want(t, done, 200, `{"ids":["8"],"results":[{"Id":"8"}]}`)
	want(t, execute(h, "1", op, "Idempotency-Key", "k1"), 200, done.body)

	for _, key := range []string{"", "\x01", "é", strings.Repeat("k", 256)} {
		want(t, post("1", "/t", `{"v":"z"}`, key), 400, "Invalid Idempotency-Key")
	}

	clock.Add(24*60*60 - 1)
	want(t, post("1", "/u", `{"v":"f"}`, "k1"), 200, `{"ids":["5"]}`)
	clock.Add(1)
	want(t, post("1", "/u", `{"v":"i"}`, "k1"), 200, `{"ids":["9"]}`)
	if n := one(t, db, `SELECT count(*) FROM _records_answer`); n != "1" { // the others were out of date
		t.Errorf("%s answers are kept", n)
	}
	for _, secret := range []string{"k1", `"v"`} {
		if n := one(t, db, `SELECT count(*) FROM _records_answer WHERE instr(key, ?1) OR instr(fingerprint, ?1) OR instr(answer, ?1)`, secret); n != "0" {
			t.Errorf("%s is kept in clear", secret)
		}
	}
}

// The same request many times at once takes place once.
func TestIdempotencyRace(t *testing.T) {
	t.Parallel()
	db := openDB(t, `CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT) STRICT`)
	h := withBatches(t, db, records.Config{APIs: []records.API{{Name: "t", Table: "t", World: everything}}})
	const keys, times = 20, 10
	answers := make([]sync.Map, keys)
	var wg sync.WaitGroup
	for i := range keys * times {
		wg.Add(1)
		go func() {
			defer wg.Done()
			k := i % keys
			r := call(h, "", "POST", "/t", fmt.Sprintf(`{"v":"%d"}`, k), "Idempotency-Key", fmt.Sprint("key", k))
			wantStatus(t, r, http.StatusOK)
			answers[k].Store(r.body, true)
		}()
	}
	wg.Wait()
	for k := range answers {
		n := 0
		answers[k].Range(func(any, any) bool { n++; return true })
		if n != 1 {
			t.Errorf("key %d: %d different answers", k, n)
		}
	}
	if n := one(t, db, `SELECT count(*) FROM t`); n != fmt.Sprint(keys) {
		t.Errorf("%s rows, want %d", n, keys)
	}
}
