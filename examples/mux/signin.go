package main

import (
	"context"
	"net/http"

	"github.com/bedplate/bedplate/records"
)

type userKey struct{}

// signIn is where your own sign-in goes: check a session or a token here and
// put who it belongs to into the context. This stand-in believes a header,
// which anybody can send: DO NOT USE IT.
func signIn(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if name := r.Header.Get("X-User"); name != "" {
			r = r.WithContext(context.WithValue(r.Context(), userKey{}, name))
		}
		next.ServeHTTP(w, r)
	})
}

// caller tells the record APIs whom signIn found; nobody is anonymous.
func caller(ctx context.Context) records.Caller {
	return records.Caller{ID: ctx.Value(userKey{})}
}
