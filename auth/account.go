package auth

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"net/http"
	"time"
)

func (s *Service) accountRoutes(add addRoute) {
	add("GET /sessions", s.serveSessions)
	add("DELETE /sessions", s.serveEndSessions)
	add("DELETE /sessions/{id}", s.serveEndSession)
	add("DELETE /delete", s.serveDelete)
	add("GET /delete", s.serveDeleteByGet)
	add("GET /avatar/{id}", s.serveAvatar)
	add("POST /avatar", s.servePutAvatar)
	add("DELETE /avatar", s.serveDeleteAvatar)
	add("POST /setup", s.serveSetup)
}

// A Session is one sign-in that has not ended.
type Session struct {
	ID      string // as in User.Session
	Created time.Time
	Seen    time.Time // when tokens were last renewed, give or take five minutes
	Expires time.Time
	Method  string // "password", "password totp", "oauth:google", ...
	Cookie  bool   // it belongs to a browser
	Device  string // User-Agent of the sign-in; written by the client
	Address string // of the sign-in
}

// Sessions returns the sessions of a user, the newest first. A user who does
// not exist has none.
func (s *Service) Sessions(ctx context.Context, user UserID) ([]Session, error) {
	var sessions []Session
	err := s.db.Query(ctx, `SELECT id, created, seen, expires, method, cookie, device, address FROM _session
		WHERE user = ? AND expires > ? ORDER BY created DESC, seen DESC, id`,
		[]driver.Value{user[:], s.now().Unix()}, func(v []driver.Value) error {
			sessions = append(sessions, Session{
				ID:      sessionName(blob(v[0])),
				Created: time.Unix(integer(v[1]), 0), Seen: time.Unix(integer(v[2]), 0), Expires: time.Unix(integer(v[3]), 0),
				Method: text(v[4]), Cookie: integer(v[5]) != 0, Device: text(v[6]), Address: text(v[7]),
			})
			return nil
		})
	if err != nil {
		return nil, fmt.Errorf("auth: list sessions: %w", err)
	}
	return sessions, nil
}

// EndSession ends one session of a user, by its ID; in this process at once,
// in others within a minute. The error is [ErrNotFound] if the user has no
// such session, whether or not somebody else has.
func (s *Service) EndSession(ctx context.Context, user UserID, session string) error {
	id, err := parseSessionName(session)
	if err != nil {
		return ErrNotFound
	}
	err = s.db.Write(ctx, must(ErrNotFound,
		`DELETE FROM _session WHERE id = ? AND user = ? AND expires > ? RETURNING 1`, id, user[:], s.now().Unix()))
	s.changed()
	return err
}

// serveSessions is GET /sessions: those of the caller. Times are unix seconds.
func (s *Service) serveSessions(w http.ResponseWriter, r *http.Request) error {
	u, err := s.requireSession(w, r)
	if err != nil {
		return err
	}
	sessions, err := s.Sessions(r.Context(), u.ID)
	if err != nil {
		return err
	}
	type entry struct {
		ID      string `json:"id"`
		Current bool   `json:"current"`
		Created int64  `json:"created"`
		Seen    int64  `json:"seen"`
		Expires int64  `json:"expires"`
		Method  string `json:"method"`
		Cookie  bool   `json:"cookie"`
		Device  string `json:"device"`
		Address string `json:"address"`
	}
	entries := make([]entry, len(sessions))
	for i, x := range sessions {
		entries[i] = entry{
			x.ID, x.ID == u.Session, x.Created.Unix(), x.Seen.Unix(), x.Expires.Unix(), x.Method, x.Cookie, x.Device, x.Address,
		}
	}
	return writeJSON(w, map[string][]entry{"sessions": entries})
}

// serveEndSession is DELETE /sessions/{id}.
func (s *Service) serveEndSession(w http.ResponseWriter, r *http.Request) error {
	u, err := s.requireSession(w, r)
	if err != nil {
		return err
	}
	id := r.PathValue("id")
	if err := s.EndSession(r.Context(), u.ID, id); err != nil {
		return err
	}
	if id == u.Session {
		s.dropCookiesOf(w, r, u)
	}
	return nil
}

// serveEndSessions is DELETE /sessions: all of the caller's, or with
// ?others=true all but the one that asks.
func (s *Service) serveEndSessions(w http.ResponseWriter, r *http.Request) error {
	u, err := s.requireSession(w, r)
	if err != nil {
		return err
	}
	switch others := r.URL.Query().Get("others"); others {
	case "true":
		err := s.db.Write(r.Context(), dropOthers(u.ID, purposeCode), endSessions(u.ID, u.session))
		s.changed()
		return err
	case "", "false":
		if err := s.EndSessions(r.Context(), u.ID); err != nil {
			return err
		}
		s.dropCookiesOf(w, r, u)
		return nil
	}
	return badRequest("invalid 'others'")
}

// dropCookiesOf removes the cookies of a browser whose session has ended. A
// request with a token has no part in them.
func (s *Service) dropCookiesOf(w http.ResponseWriter, r *http.Request, u *User) {
	if u.Credential == Cookie {
		s.dropCookies(w, r, cookieAuth, cookieRefresh)
	}
}

// serveDelete is DELETE /delete: the caller's account goes, with all that
// refers to it and says so (ON DELETE CASCADE).
func (s *Service) serveDelete(w http.ResponseWriter, r *http.Request) error {
	u, err := s.requireSession(w, r)
	if err != nil {
		return err
	}
	if err := s.DeleteUser(r.Context(), u.ID); err != nil {
		if errors.Is(err, ErrNotFound) {
			return ErrUnauthorized // somebody was faster
		}
		return err
	}
	s.dropCookiesOf(w, r, u)
	return writeText(w, "deleted")
}

// serveDeleteByGet is GET /delete, which a release of the JavaScript client
// sends. It counts with a token only, and a request with an Authorization
// header is never judged by its cookies: browsers send those along with a GET
// that any page, prefetch or scanner has caused.
func (s *Service) serveDeleteByGet(w http.ResponseWriter, r *http.Request) error {
	if r.Method != http.MethodGet || r.Header.Get("Authorization") == "" {
		w.Header().Set("Allow", http.MethodDelete)
		return &Error{Status: http.StatusMethodNotAllowed}
	}
	return s.serveDelete(w, r)
}
