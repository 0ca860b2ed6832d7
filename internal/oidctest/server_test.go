package oidctest_test

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"

	"github.com/bedplate/bedplate/internal/oidctest"
)

// TestAuthorize wants the provider to hold clients to PKCE.
func TestAuthorize(t *testing.T) {
	t.Parallel()
	s, err := oidctest.NewServer("https://id.example.com", oidctest.Options{RedirectURIs: []string{"https://app.example.com/cb"}})
	if err != nil {
		t.Fatal(err)
	}
	good := url.Values{
		"client_id": {"client"}, "redirect_uri": {"https://app.example.com/cb"}, "response_type": {"code"}, "scope": {"openid"},
		"state": {"s"}, "code_challenge_method": {"S256"}, "code_challenge": {"E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"},
	}
	for _, test := range []struct {
		name, value string
		status      int
		want        string // error of the answer
	}{
		{"state", "other", http.StatusFound, ""},
		{"code_challenge_method", "plain", http.StatusFound, "invalid_request"},
		{"code_challenge", "", http.StatusFound, "invalid_request"},
		{"response_type", "token", http.StatusFound, "unsupported_response_type"},
		{"scope", "email", http.StatusFound, "invalid_scope"},
		{"client_id", "other", http.StatusBadRequest, ""},
		{"redirect_uri", "https://app.example.com/cb2", http.StatusBadRequest, ""},
	} {
		q := url.Values{}
		for name, values := range good {
			q[name] = values
		}
		q.Set(test.name, test.value)
		w := httptest.NewRecorder()
		s.Handler().ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, oidctest.AuthorizePath+"?"+q.Encode(), nil))
		location, err := url.Parse(w.Header().Get("Location"))
		if err != nil || w.Code != test.status || location.Query().Get("error") != test.want ||
			(location.Query().Get("code") != "") != (test.status == http.StatusFound && test.want == "") {
			t.Errorf("%s=%s: status %d, location %s", test.name, test.value, w.Code, location)
		}
	}
}
