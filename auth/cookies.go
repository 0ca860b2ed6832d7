package auth

import (
	"net/http"
	"time"
)

// The cookies of the contract, and one by which a browser is known again.
const (
	cookieAuth    = "auth_token"
	cookieRefresh = "refresh_token"
	cookieState   = "oauth_state"
	cookieDevice  = "device"
)

// cookieName is the name of a cookie on the wire. Where the site is reached by
// https it has the prefix __Host-, which makes browsers refuse one that
// another host or an unencrypted answer has set (RFC 6265bis, section 4.1.3).
func (s *Service) cookieName(name string) string {
	if s.secure() {
		return "__Host-" + name
	}
	return name
}

func (s *Service) secure() bool { return s.site.Scheme == "https" }

func (s *Service) setCookie(w http.ResponseWriter, name, value string, ttl time.Duration, same http.SameSite) {
	http.SetCookie(w, &http.Cookie{
		Name: s.cookieName(name), Value: value, Path: "/", MaxAge: int(min(ttl, 400*24*time.Hour) / time.Second),
		HttpOnly: true, Secure: s.secure(), SameSite: same,
	})
}

// dropCookies removes the cookies that the request has shown.
func (s *Service) dropCookies(w http.ResponseWriter, r *http.Request, names ...string) {
	for _, name := range names {
		if _, err := r.Cookie(s.cookieName(name)); err == nil {
			http.SetCookie(w, &http.Cookie{
				Name: s.cookieName(name), Path: "/", MaxAge: -1, HttpOnly: true, Secure: s.secure(), SameSite: http.SameSiteLaxMode,
			})
		}
	}
}

// setTokens gives the tokens to a browser.
func (s *Service) setTokens(w http.ResponseWriter, t Tokens, left time.Duration, same http.SameSite) {
	s.setCookie(w, cookieAuth, t.AuthToken, s.cfg.AccessTTL, same)
	s.setCookie(w, cookieRefresh, t.RefreshToken, left, http.SameSiteStrictMode)
}

// cookie returns a cookie's value, "" if there is none or it is too long to be
// ours.
func (s *Service) cookie(r *http.Request, name string) string {
	c, err := r.Cookie(s.cookieName(name))
	if err != nil || len(c.Value) > maxToken {
		return ""
	}
	return c.Value
}
