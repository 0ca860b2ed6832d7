package auth

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"database/sql/driver"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/bedplate/bedplate/sqlite"
)

// serveRefresh is POST /refresh. A client that sends "rotate": true gets the
// successor of its refresh token, and must use that from then on.
func (s *Service) serveRefresh(w http.ResponseWriter, r *http.Request) error {
	f, err := s.readJSON(w, r, "refresh_token")
	if err != nil {
		return err
	}
	rotate := f.value("rotate") == "true"
	t, err := s.refresh(r.Context(), f.value("refresh_token"), rotate)
	if err != nil {
		return err
	}
	if rotate {
		return writeJSON(w, t.Tokens)
	}
	return writeJSON(w, struct {
		AuthToken string `json:"auth_token"`
		CSRFToken string `json:"csrf_token"`
	}{t.AuthToken, t.CSRFToken})
}

// serveStatus is GET /status: the caller's tokens, with a fresh auth token for
// who has a refresh token. Pages whose session lives in cookies get their
// tokens here, which is why the answer is never cached and has no CORS
// credentials. The refresh token that they get is one of their own: that of
// the cookie is rotated behind their back, by any request of another tab.
func (s *Service) serveStatus(w http.ResponseWriter, r *http.Request) error {
	type status struct {
		AuthToken    *string `json:"auth_token"`
		RefreshToken *string `json:"refresh_token"`
		CSRFToken    *string `json:"csrf_token"`
	}
	token, refresh, cookie := "", r.Header.Get("Refresh-Token"), false
	if header, ok := r.Header["Authorization"]; ok {
		token = bearerToken(header)
	} else {
		token, refresh, cookie = s.cookie(r, cookieAuth), s.cookie(r, cookieRefresh), true
	}
	if refresh != "" && (token != "" || cookie) {
		if token != "" && !cookie {
			// The header is not refreshed when it is not good.
			u, err := s.lookup(r.Context(), token, Bearer)
			if err != nil {
				return err
			}
			if u == nil {
				return writeJSON(w, status{})
			}
		}
		t, err := s.refresh(r.Context(), refresh, cookie)
		if err != nil {
			if cookie && asError(err) != nil && asError(err).Status == http.StatusUnauthorized {
				s.dropCookies(w, r, cookieAuth, cookieRefresh)
				return writeJSON(w, status{})
			}
			return err
		}
		if cookie {
			page, err := s.pageToken(r.Context(), t.session)
			if err != nil {
				return err
			}
			s.setTokens(w, t.Tokens, time.Unix(t.state.expires, 0).Sub(s.now()), http.SameSiteStrictMode)
			t.RefreshToken = page
		}
		return writeJSON(w, status{&t.AuthToken, &t.RefreshToken, &t.CSRFToken})
	}
	if token == "" {
		return writeJSON(w, status{})
	}
	credential := Bearer
	if cookie {
		credential = Cookie
	}
	u, err := s.lookup(r.Context(), token, credential)
	if err != nil {
		return err
	}
	if u == nil {
		return writeJSON(w, status{})
	}
	// Who has no refresh token gets no token that lives longer.
	return writeJSON(w, status{&token, nil, &u.csrf})
}

// pageToken returns a refresh token for the scripts of a page whose session
// lives in cookies. All pages of a session get the same one, as long as none of
// them rotates it; it is derived from the session, so that it need not be
// stored to be given out again.
func (s *Service) pageToken(ctx context.Context, session []byte) (string, error) {
	for n := range maxRotated {
		token := s.deriveToken(fmt.Sprintf("page %d of %s", n, sessionName(session)))
		hash := hashToken(token)
		known, used, err := s.refreshToken(ctx, hash)
		if err == nil && known == nil {
			err = s.db.Write(ctx, sqlite.Stmt{
				SQL:  `INSERT INTO _refresh_token (hash, session) VALUES (?, ?) ON CONFLICT DO NOTHING`,
				Args: []driver.Value{hash, session},
			})
		}
		if err != nil {
			return "", err
		}
		if !used {
			return token, nil
		}
	}
	return "", errors.New("auth: the session has rotated too many tokens")
}

// serveLogout is POST /logout: it ends the session of a refresh token. It says
// nothing about whether there was one.
func (s *Service) serveLogout(w http.ResponseWriter, r *http.Request) error {
	f, err := s.readJSON(w, r)
	if err != nil {
		return err
	}
	if token := f.value("refresh_token"); len(token) == refreshLength {
		session, _, err := s.refreshToken(r.Context(), hashToken(token))
		if err != nil {
			return err
		}
		if session != nil {
			if err := s.endSession(r.Context(), session); err != nil {
				return err
			}
		}
	}
	w.WriteHeader(http.StatusOK)
	return nil
}

// serveLogoutPage is GET /logout. A link on another site must not be able to
// sign a browser out: only a navigation from this site, or one that the user
// typed, changes anything.
func (s *Service) serveLogoutPage(w http.ResponseWriter, r *http.Request) error {
	f, err := readQuery(r)
	if err != nil {
		return err
	}
	target, err := s.target(f, "redirect_uri")
	if err != nil {
		return err
	}
	site := r.Header.Get("Sec-Fetch-Site")
	_, bearer := r.Header["Authorization"]
	if !bearer && (site == "cross-site" || site == "same-site") || r.Method == http.MethodHead {
		redirect(w, s.cfg.PagesPrefix+"/logout")
		return nil
	}
	u, err := s.authenticate(w, r)
	if err != nil {
		return err
	}
	if u != nil && u.Credential != APIKey && u.Credential != External {
		if err := s.EndSessions(r.Context(), u.ID); err != nil {
			return err
		}
	}
	if !bearer {
		s.dropCookies(w, r, cookieAuth, cookieRefresh)
	}
	if target != "" {
		redirect(w, target)
		return nil
	}
	return writeText(w, "logged out")
}

// serveToken is POST /token: it exchanges an authorization code and its PKCE
// verifier (RFC 7636, section 4.6). A code is good once; when it is shown
// again, the session that it began ends, since somebody else has seen it
// (RFC 6749, section 4.1.2).
func (s *Service) serveToken(w http.ResponseWriter, r *http.Request) error {
	f, err := s.readJSON(w, r, "authorization_code", "pkce_code_verifier")
	if err != nil {
		return err
	}
	code := f.value("authorization_code")
	if len(code) != 48 {
		return badRequest("invalid auth code")
	}
	hash := hashToken(code)
	c, err := s.peek(r.Context(), purposeCode, hash)
	if err != nil {
		return err
	}
	if !c.ok {
		return s.codeReused(r.Context(), hash)
	}
	var state codeState
	if err := s.unsealData(purposeCode, c.data, &state); err != nil {
		return err
	}
	sum := sha256.Sum256([]byte(f.value("pkce_code_verifier")))
	challenge := base64.RawURLEncoding.EncodeToString(sum[:])
	if n := len(f.value("pkce_code_verifier")); n < 43 || n > 128 || subtle.ConstantTimeCompare([]byte(challenge), []byte(state.Challenge)) != 1 {
		return ErrNotFound
	}
	u, err := s.userByID(r.Context(), c.user)
	if err != nil {
		return err
	}
	if u == nil || !u.active() {
		return ErrNotFound
	}
	t, err := s.begin(r.Context(), signIn{user: u, method: state.Method, request: r, code: hash})
	if errors.Is(err, errUsed) {
		return s.codeReused(r.Context(), hash)
	}
	if err != nil {
		return err
	}
	return writeJSON(w, t)
}

// codeReused ends the session that a code began, if it did.
func (s *Service) codeReused(ctx context.Context, hash []byte) error {
	var session []byte
	err := s.db.Write(ctx, sqlite.Stmt{
		SQL:  `DELETE FROM _session WHERE id = (SELECT session FROM _one_time WHERE hash = ? AND purpose = ?) RETURNING id`,
		Args: []driver.Value{hash, purposeCode},
		Row:  func(v []driver.Value) { session = blob(v[0]) },
	})
	if err != nil {
		return err
	}
	if session != nil {
		s.changed()
		s.log.WarnContext(ctx, "an authorization code was shown again, its session is ended", "session", sessionName(session))
	}
	return ErrNotFound
}
