package tlsauto

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"golang.org/x/crypto/acme"
)

func TestIssueError(t *testing.T) {
	t.Parallel()
	const urn = "urn:ietf:params:acme:error:"
	limit := &acme.Error{StatusCode: 429, ProblemType: urn + "rateLimited", Detail: "wait", Header: http.Header{"Retry-After": {"60"}}}
	for _, test := range []struct {
		err   error
		want  string
		after time.Duration
	}{
		{errors.New("no\nroute"), "do it: no route", 0},
		{limit, "do it: 429 rateLimited: wait", time.Minute},
		{&acme.Error{StatusCode: 400, ProblemType: urn + "malformed", Header: limit.Header}, "do it: 400 malformed", 0},
		{&acme.Error{StatusCode: 403, ProblemType: "about:blank", Detail: "no", Instance: "https://ca.example/terms"},
			"do it: 403 about:blank: no (see https://ca.example/terms)", 0},
		{&acme.Error{StatusCode: 400, ProblemType: urn + "compound", Detail: "two", Subproblems: []acme.Subproblem{
			{Detail: "one", Identifier: &acme.AuthzID{Type: "dns", Value: "a.example"}}, {Detail: "other"},
		}}, "do it: 400 compound: two; a.example: one; other", 0},
		{&acme.AuthorizationError{Identifier: "a.example"}, "do it: refused without a reason", 0},
		{&acme.OrderError{Status: "invalid"}, "do it: the order is invalid", 0},
		{&acme.OrderError{Status: "invalid", Problem: &acme.Error{StatusCode: 403, ProblemType: urn + "caa", Detail: "forbidden"}},
			"do it: the order is invalid: 403 caa: forbidden", 0},
	} {
		err := issueError(t.Context(), "do it", test.err)
		var after *RetryAfterError
		if errors.As(err, &after); (after == nil) != (test.after == 0) || after != nil && after.After != test.after {
			t.Errorf("%v: %#v, want to wait for %s", test.err, err, test.after)
		}
		if err.Error() != test.want || !errors.Is(err, test.err) {
			t.Errorf("%q, want %q", err, test.want)
		}
	}

	ended, end := context.WithCancel(t.Context())
	end()
	if err := issueError(ended, "do it", limit); !errors.Is(err, context.Canceled) || errors.As(err, new(*RetryAfterError)) {
		t.Errorf("%#v, want that the context has ended", err)
	}
}

func TestIssueErrorIsBounded(t *testing.T) {
	t.Parallel()
	long := &acme.Error{Detail: strings.Repeat("é\x1b\u202e", 100_000)}
	long.Subproblems = slices.Repeat([]acme.Subproblem{{Detail: long.Detail}}, 100)
	many := &acme.AuthorizationError{Errors: slices.Repeat([]error{long}, 100)}
	for _, err := range []error{long, many, &acme.OrderError{Problem: long}, errors.New(long.Detail)} {
		text := issueError(t.Context(), "do it", err).Error()
		if len(text) > maxReason+20 || !utf8.ValidString(text) || strings.ContainsAny(text, "\x1b\u202e\n") {
			t.Errorf("%d bytes: %q", len(text), text)
		}
	}
}
