package auth

import (
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"
)

// redirectTarget checks where a request wants to be sent. Allowed are paths of
// this site but for routes of ours, absolute URIs of such, URIs that are listed
// exactly, and any URI of a listed scheme for native clients. What browsers
// read differently from how it is written, such as a backslash or a tab, is
// refused everywhere.
func (s *Service) redirectTarget(uri string) (string, error) {
	refused := badRequest("invalid redirect")
	if len(uri) > 2048 {
		return "", refused
	}
	for _, c := range []byte(uri) {
		if c <= ' ' || c == '\\' || c >= 0x7f {
			return "", refused
		}
	}
	if slices.Contains(s.cfg.RedirectURIs, uri) {
		return uri, nil
	}
	u, err := url.Parse(uri)
	if err != nil || u.User != nil || u.Opaque != "" {
		return "", refused
	}
	switch {
	case u.Scheme == "" && u.Host == "":
		// Of "//host/" and "/%2fhost" one is another site and the other is read as one by some.
		if !strings.HasPrefix(uri, "/") || strings.HasPrefix(uri, "//") || trickyPath(u.Path) || s.isRoute(u.Path) {
			return "", refused
		}
	case u.Scheme == s.site.Scheme && u.Host == s.site.Host:
		if trickyPath(u.Path) || s.isRoute(u.Path) {
			return "", refused
		}
	case slices.Contains(s.cfg.RedirectSchemes, u.Scheme):
	default:
		return "", refused
	}
	return uri, nil
}

// trickyPath reports whether somebody might read an unescaped path as another
// one, or as another host.
func trickyPath(path string) bool {
	for segment := range strings.SplitSeq(path, "/") {
		if segment == "." || segment == ".." {
			return true
		}
	}
	return strings.HasPrefix(path, "//") || strings.ContainsAny(path, "\\\r\n\t")
}

// isRoute reports whether a path of the site is one of ours but for the pages.
// There is nothing to see, and a redirect there would look as if a page of the
// site had asked for it: it could only sign somebody out, or in again.
func (s *Service) isRoute(p string) bool {
	return strings.HasPrefix(path.Clean(p)+"/", s.cfg.Prefix+"/")
}

// withQuery returns uri with further parameters in its query: name, value, ...
func withQuery(uri string, pairs ...string) string {
	fragment := ""
	if i := strings.IndexByte(uri, '#'); i >= 0 {
		uri, fragment = uri[:i], uri[i:]
	}
	separator := "?"
	if strings.Contains(uri, "?") {
		separator = "&"
	}
	for i := 0; i+1 < len(pairs); i += 2 {
		uri += separator + url.QueryEscape(pairs[i]) + "=" + url.QueryEscape(pairs[i+1])
		separator = "&"
	}
	return uri + fragment
}

// redirect answers 303.
func redirect(w http.ResponseWriter, uri string) {
	w.Header().Set("Location", uri)
	w.WriteHeader(http.StatusSeeOther)
}
