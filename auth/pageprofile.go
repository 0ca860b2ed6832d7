package auth

import (
	"context"
	"errors"
	"net/http"
	"strings"
)

// A pageSession is a session as the profile shows it.
type pageSession struct {
	Session
	With    string // how the user signed in, in words
	Current bool
}

// serveProfile is the page profile: who is signed in, and where.
func (s *Service) serveProfile(w http.ResponseWriter, r *http.Request) error {
	u, err := s.visitor(w, r, "/profile")
	if u == nil {
		return err
	}
	sessions, err := s.Sessions(r.Context(), u.ID)
	if err != nil {
		return err
	}
	p := page{
		Title:  "Your account",
		Alert:  alert(r),
		User:   u,
		Logout: s.pageURL("/logout"),
		Revoke: s.pageURL("/profile/revoke"),
		Links:  []pageLink{{"Change your password", s.pageURL("/change_password")}},
	}
	for _, x := range sessions {
		x.Created = x.Created.UTC()
		p.Sessions = append(p.Sessions, pageSession{x, s.methodName(x.Method), x.ID == u.Session})
	}
	return s.show(w, "profile", p)
}

// methodName puts the method of a session into words.
func (s *Service) methodName(method string) string {
	factors := strings.Fields(method)
	for i, f := range factors {
		switch f {
		case "anonymous":
			factors[i] = "no account"
		case "otp":
			factors[i] = "a mailed code"
		case methodTOTP:
			factors[i] = "an authenticator app"
		case methodRecovery:
			factors[i] = "a recovery code"
		default:
			provider, ok := strings.CutPrefix(f, "oauth:")
			if p := s.providers[provider]; ok && p != nil && p.Provider().Display != "" {
				factors[i] = p.Provider().Display
			} else if ok {
				factors[i] = provider
			}
		}
	}
	return strings.Join(factors, " and ")
}

// serveRevokeSent ends a session from the profile.
func (s *Service) serveRevokeSent(w http.ResponseWriter, r *http.Request) error {
	f, err := s.readPageForm(w, r)
	if err != nil {
		return err
	}
	u, err := s.visitor(w, r, "/profile")
	if u == nil {
		return err
	}
	message := "The device is signed out."
	err = s.EndSession(r.Context(), u.ID, f.value("session"))
	switch {
	case errors.Is(err, ErrNotFound):
		message = "That device was signed out already."
	case err != nil:
		return err
	case f.value("session") == u.Session:
		s.dropCookiesOf(w, r, u)
		redirect(w, s.pageURL("/login", "alert", signedOut))
		return nil
	}
	redirect(w, s.pageURL("/profile", "alert", message))
	return nil
}

const signedOut = "You are signed out."

// readPageForm reads a form that one of our pages has sent.
func (s *Service) readPageForm(w http.ResponseWriter, r *http.Request) (*form, error) {
	if err := s.checkOrigin(r); err != nil {
		return nil, err
	}
	return s.readForm(w, r)
}

// serveLogoutForm is the page logout: a button, because a link that signs out
// could be opened by anything.
func (s *Service) serveLogoutForm(w http.ResponseWriter, r *http.Request) error {
	target, _, err := s.pageTarget(r)
	if err != nil {
		return err
	}
	p := page{
		Title:  "Sign out",
		Alert:  alert(r),
		Text:   "Do you want to sign out on this device?",
		Action: s.pageURL("/logout"),
		Button: "Sign out",
		Links:  []pageLink{{"Back to your account", s.pageURL("/profile")}},
	}
	if target != "" {
		p.Hidden = []pageField{{Name: "redirect_uri", Value: target}}
	}
	return s.show(w, "form", p, target)
}

// serveLogoutSent ends the session of the cookies and removes them.
func (s *Service) serveLogoutSent(w http.ResponseWriter, r *http.Request) error {
	f, err := s.readPageForm(w, r)
	if err != nil {
		return err
	}
	target, err := s.target(f, "redirect_uri")
	if err != nil {
		return err
	}
	if err := s.endCookieSession(r.Context(), s.cookie(r, cookieAuth), s.cookie(r, cookieRefresh)); err != nil {
		return err
	}
	s.dropCookies(w, r, cookieAuth, cookieRefresh)
	if target == "" {
		target = s.pageURL("/login", "alert", signedOut)
	}
	redirect(w, target)
	return nil
}

// endCookieSession ends the session that a browser's cookies belong to. An
// auth token may have expired, and a refresh token may be a used one.
func (s *Service) endCookieSession(ctx context.Context, auth, refresh string) error {
	var sessions [][]byte
	if auth != "" {
		u, err := s.lookup(ctx, auth, Cookie)
		if err != nil {
			return err
		}
		if u != nil {
			sessions = append(sessions, u.session)
		}
	}
	if len(refresh) == refreshLength {
		session, _, err := s.refreshToken(ctx, hashToken(refresh))
		if err != nil {
			return err
		}
		if session != nil {
			sessions = append(sessions, session)
		}
	}
	for _, session := range sessions {
		if err := s.endSession(ctx, session); err != nil {
			return err
		}
	}
	return nil
}
