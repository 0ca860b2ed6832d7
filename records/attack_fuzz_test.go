package records_test

import (
	"encoding/json"
	"strings"
	"testing"
)

// attackedFuzz is a small service with everything that a request can ask for,
// and a function that fails unless the rows of bob are what they were.
func attackedFuzz(f *testing.F) (*attacked, func(*testing.T)) {
	f.Helper()
	a := newAttacked(f)
	const his = `SELECT group_concat(quote(d.id) || quote(d.owner) || quote(d.title) || quote(d.one) || quote(d.many) || quote(d.secret)) || (SELECT count(*) FROM note WHERE owner = 'bob') FROM doc d WHERE d.owner = 'bob'`
	before := one(f, a.db, his)
	return a, func(t *testing.T) {
		t.Helper()
		if after := one(t, a.db, his); after != before {
			t.Errorf("bob had %s and has %s", before, after)
		}
		checkSums(t, a.db)
	}
}

// wantSane fails for an answer that no request may get.
func wantSane(t *testing.T, r response) {
	t.Helper()
	switch {
	case r.status >= 500, strings.Contains(r.body, "TATTLE"), strings.Contains(r.body, "of bob"):
		t.Errorf("%s", r.same())
	case r.status == 200 && r.header.Get("Content-Type") == "application/json" && !json.Valid([]byte(r.body)):
		t.Errorf("not JSON: %s", r.body)
	}
}

// limpid reports whether a header may have this value: others do not get past
// net/http.
func limpid(value string) bool {
	for i := range len(value) {
		if value[i] < 0x20 && value[i] != '\t' || value[i] == 0x7f {
			return false
		}
	}
	return true
}

func FuzzBatch(f *testing.F) {
	a, unchanged := attackedFuzz(f)
	for _, body := range []string{
		`{}`, `{"operations":[],"transaction":true}`, `{"operations":[{"Create":{"api_name":"own","value":{"owner":"alice"}}},{"Update":{"api_name":"own","record_id":{"$id":0},"value":{"title":"x"}}},{"Delete":{"api_name":"own","record_id":{"$id":1}}}],"transaction":true}`,
		`{"operations":[{"Create":{"api_name":"note","value":{"owner":"alice","doc":{"$id":0}}}}]}`, `{"operations":[{"Update":{"api_name":"own","record_id":"2","value":{"one":{"filename":"x"}}}}],"transaction":true}`, `{"operations":[{"Create":{"api_name":"own","value":{"owner":"alice","one":{"data":"AAAA"}}}},{"Delete":{"api_name":"own","record_id":2}}],"transaction":true}`,
	} {
		f.Add(body, "k")
		f.Add(body, "")
	}
	f.Fuzz(func(t *testing.T, body, key string) {
		header := []string{"Content-Type", "application/json"}
		if key != "" {
			if !limpid(key) {
				return
			}
			header = append(header, "Idempotency-Key", key)
		}
		r := call(a, "alice", "POST", "/execute", body, header...)
		wantSane(t, r)
		if again := call(a, "alice", "POST", "/execute", body, header...); key != "" && r.status == 200 && !strings.Contains(body, `"operations":[]`) && again.status == 200 && again.body != r.body {
			t.Errorf("%v, again %v", r, again)
		}
		wantSane(t, call(a, "", "POST", "/execute", body, header...))
		execSQL(t, a.db, `DELETE FROM note WHERE id > 2; DELETE FROM doc WHERE id NOT IN (1, 2); DELETE FROM _records_answer`)
		unchanged(t)
	})
}

func FuzzConditions(f *testing.F) {
	a, unchanged := attackedFuzz(f)
	tag := get(a, "alice", "/own/1").header.Get("Etag")
	for _, value := range []string{"*", tag, "W/" + tag, `"a", "b"`, `"a"`, `W/"a"`, `"`, `""`, `,`, `"a",,"b"`, `* , "a"`, `"a" "b"`, `W/`, `w/"a"`, strings.Repeat(`"a",`, 100), tag + ","} {
		f.Add(value, "")
		f.Add("", value)
		f.Add(value, value)
	}
	f.Fuzz(func(t *testing.T, match, none string) {
		if !limpid(match) || !limpid(none) {
			return
		}
		header := []string{"If-Match", match, "If-None-Match", none}
		if match == "" {
			header = header[2:]
		}
		if none == "" {
			header = header[:len(header)-2]
		}
		for _, method := range []string{"GET", "PATCH", "DELETE"} {
			hidden, missing := call(a, "alice", method, "/own/2", `{}`, header...), call(a, "alice", method, "/own/99", `{}`, header...)
			wantSane(t, hidden)
			if hidden.same() != missing.same() || hidden.status < 300 {
				t.Errorf("%s %q: hidden %s, missing %s", method, header, hidden.same(), missing.same())
			}
		}
		r := call(a, "alice", "PATCH", "/own/1", `{}`, header...)
		wantSane(t, r)
		if r.status == 200 && match != "" && !strings.Contains(match, tag) && strings.TrimSpace(match) != "*" {
			t.Errorf("If-Match %q holds", match)
		}
		wantSane(t, call(a, "alice", "GET", "/own/1", "", header...))
		unchanged(t)
	})
}

func FuzzQuery(f *testing.F) {
	a, unchanged := attackedFuzz(f)
	for _, q := range []string{
		`filter[id][$in]=[1,2]`, `filter[title][$nin]=["a","\u0062"]`, `filter[id][$in]=[`, `filter[one][$in]=[]`, `fields=id,title`, `fields=secret`, `fields=`, `expand=notes,parent&fields=parent`, `match=a`, `match="`, `count=true&fields=id&limit=1&order=-title,id`, `filter[$or][0][id][$in]=[1.5,-1e9]&filter[$or][1][_hidden]=x`,
	} {
		f.Add(q)
	}
	f.Fuzz(func(t *testing.T, q string) {
		for _, path := range []string{"/own", "/own/1", "/note"} {
			r := answer(t, signedAs{a, "alice"}, "GET", path, q, "", "")
			wantSane(t, r)
			if r.status != 200 && r.status != 400 {
				t.Errorf("%s?%s: %v", path, q, r)
			}
		}
		unchanged(t)
	})
}

func FuzzUpload(f *testing.F) {
	a, unchanged := attackedFuzz(f)
	const part = "--X\r\nContent-Disposition: form-data; name=\"%\"; filename=\"a\"\r\nContent-Type: text/plain\r\n\r\nA\r\n"
	for _, body := range []string{"--X--", strings.ReplaceAll(part, "%", "one") + "--X--", strings.Repeat(strings.ReplaceAll(part, "%", "many"), 3) + "--X--", strings.ReplaceAll(part, "%", "title") + "--X--", strings.ReplaceAll(part, "%", "one"), "--X\r\nContent-Disposition: form-data; name=\"title\"\r\n\r\nx\r\n--X--"} {
		f.Add(body, "multipart/form-data; boundary=X")
	}
	f.Add(`{"owner":"alice","one":{"data":"AAAA","filename":"../x"},"many":[{"data":"-_==","name":"y"},{"filename":"z"}]}`, "application/json")
	f.Fuzz(func(t *testing.T, body, media string) {
		if !limpid(media) {
			return
		}
		for _, id := range []string{"/own/1", "/own/2"} {
			wantSane(t, call(a, "alice", "PATCH", id, body, "Content-Type", media))
		}
		wantSane(t, call(a, "alice", "POST", "/own", body, "Content-Type", media))
		wantSane(t, call(a, "", "POST", "/own", body, "Content-Type", media))
		execSQL(t, a.db, `DELETE FROM note WHERE id > 2; DELETE FROM doc WHERE id NOT IN (1, 2)`)
		wantStatus(t, call(a, "alice", "PATCH", "/own/1", `{"title":"t","one":`+fileJSON("a", "", "A")+`,"many":null}`), 200)
		if stored := a.store.contents(); stored != "A bob many bob one" {
			t.Errorf("stored: %q", stored)
		}
		unchanged(t)
	})
}
