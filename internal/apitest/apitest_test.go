package apitest

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
)

const conversation = `# a comment
== first
> POST /a?b=c
> X-Name:  value
>
> one
> two
< 200
< Content-Type: text/x
<
< POST /a?b=c value "one\ntwo"
< {"cursor":"{cursor}","ids":["7","8"]}

== second
> GET /{id}?cursor={cursor}
< 200
< Content-Type: text/x
<
< GET /8?cursor=abc  ""
< {"cursor":"{cursor}","ids":["7","8"]}
`

func TestParseAndPlay(t *testing.T) {
	t.Parallel()
	exchanges, err := parse(conversation)
	if err != nil || len(exchanges) != 2 {
		t.Fatalf("%d exchanges, %v", len(exchanges), err)
	}
	p := &player{handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		w.Header().Set("Content-Type", "text/x")
		w.Header().Set("X-Other", "not shown")
		fmt.Fprintf(w, "%s %s %s %q\n", r.Method, r.URL, r.Header.Get("X-Name"), body)
		fmt.Fprint(w, `{"cursor":"abc","ids":["7","8"]}`)
	})}
	for _, e := range exchanges {
		got, err := p.play(e)
		if err != nil {
			t.Fatal(err)
		}
		if got != e.response {
			t.Errorf("%s:\n%s", e.name, compare(got, e.response))
		}
	}
}

func TestParseMistakes(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"> GET /", "== a\nnonsense"} {
		if _, err := parse(text); err == nil {
			t.Errorf("%q is accepted", text)
		}
	}
	for _, request := range []string{"", "GET", "GET /\nheader"} {
		e := exchange{}
		if request != "" {
			e.request = strings.Split(request, "\n")
		}
		if _, err := (&player{}).play(e); err == nil {
			t.Errorf("%q is accepted", request)
		}
	}
}
