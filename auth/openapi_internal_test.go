package auth

import (
	"maps"
	"slices"
	"strings"
	"testing"
)

// Every route that there can be has a description, and nothing else has.
func TestDescriptions(t *testing.T) {
	t.Parallel()
	s := &Service{cfg: Config{Anonymous: true, OTP: true}}
	var routes []string
	for _, r := range s.allRoutes() {
		routes = append(routes, r.method+" /"+strings.Join(r.path, "/"))
	}
	slices.Sort(routes)
	if described := slices.Sorted(maps.Keys(descriptions())); !slices.Equal(described, routes) {
		t.Errorf("described %q\nroutes    %q", described, routes)
	}
}

// The document has the routes of the configuration and the name of its cookie.
func TestOpenAPI(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		url          string
		anonymous    bool
		cookie, path string
	}{
		{"https://app.example.com", true, "__Host-auth_token", "/x/login_anonymous"},
		{"http://localhost", false, "auth_token", "/x/otp/login"},
	} {
		paths, schemas, security := OpenAPI(Config{Anonymous: c.anonymous, OTP: !c.anonymous, SiteURL: c.url}, "/x")
		if security["cookie"].(object)["name"] != c.cookie || paths[c.path] == nil || schemas["auth.Tokens"] == nil {
			t.Errorf("%s: %v", c.url, security)
		}
		if (paths["/x/login_anonymous"] != nil) != c.anonymous || (paths["/x/otp/login"] != nil) == c.anonymous {
			t.Errorf("%s: routes of another configuration", c.url)
		}
		sessions := paths["/x/sessions/{id}"].(object)["delete"].(object)
		if len(sessions["security"].([]any)) != 2 || len(paths["/x/login"].(object)["post"].(object)["security"].([]any)) != 0 {
			t.Error("security")
		}
	}
}
