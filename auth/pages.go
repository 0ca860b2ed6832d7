package auth

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"errors"
	"fmt"
	htmltemplate "html/template"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/bedplate/bedplate/internal/problem"
)

//go:embed pages/*.html
var pageFiles embed.FS

//go:embed pages/style.css
var pageStyle string

// pageTemplates are those of all pages. The style sheet is part of each page,
// so that links of mails work where the pages are not mounted.
var pageTemplates = sync.OnceValue(func() *htmltemplate.Template {
	style := func() htmltemplate.CSS { return htmltemplate.CSS(pageStyle) }
	return htmltemplate.Must(htmltemplate.New("").Funcs(htmltemplate.FuncMap{"style": style}).ParseFS(pageFiles, "pages/*.html"))
})

// pageStyleHash allows the style sheet in a Content-Security-Policy.
var pageStyleHash = sync.OnceValue(func() string {
	sum := sha256.Sum256([]byte(pageStyle))
	return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
})

// PagesAt returns a handler for the pages below prefix, which begins with a
// slash and does not end in one: small forms without scripts, for everything
// that people do about their account. Their links begin with
// Config.PagesPrefix and their forms are sent to Config.Prefix; prefix is
// another than the former where an [http.StripPrefix] stands before the handler.
//
//	login, login_mfa, register, logout, profile, change_password
//	otp/request, otp/login             with Config.OTP
//	reset_password/request, reset_password/update/{token}
//	setup/{token}                      see [Service.SetupLink]
//
// Pages of the sign-in take the parameters of POST /login in the query:
// redirect_uri, mfa_redirect_uri, response_type and pkce_code_challenge. A
// native client opens
//
//	/_/auth/login?redirect_uri=my-app:/signed-in&response_type=code&pkce_code_challenge=...
//
// in a browser and gets the code at its URI.
func (s *Service) PagesAt(prefix string) http.Handler {
	routes := s.pageRoutes()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.dispatch(routes, strings.TrimPrefix(r.URL.Path, prefix), w, r)
	})
}

func (s *Service) pageRoutes() (routes []route) {
	add := adder(&routes)
	add("GET /login", s.serveLoginForm)
	add("GET /login_mfa", s.serveLoginMFAForm)
	if s.cfg.OTP {
		add("GET /otp/request", s.serveOTPRequestForm)
		add("GET /otp/login", s.serveOTPLoginForm)
	}
	if !s.cfg.NoPasswords {
		add("GET /register", s.serveRegisterForm)
	}
	add("GET /reset_password/request", s.serveResetRequestForm)
	add("GET /reset_password/update/{token}", s.serveResetUpdateForm)
	add("GET /change_password", s.serveChangePasswordForm)
	add("GET /setup/{token}", s.serveSetupForm)
	add("GET /logout", s.serveLogoutForm)
	add("POST /logout", s.serveLogoutSent)
	add("GET /profile", s.serveProfile)
	add("POST /profile/revoke", s.serveRevokeSent)
	return routes
}

// A page is what the templates show.
type page struct {
	App   string
	Title string
	Alert string // what has just happened
	Text  string
	Links []pageLink

	// A form. Without an Action it is sent to where the page is.
	Action    string
	Hidden    []pageField
	Fields    []pageField
	Button    string
	Providers []pageLink

	// Of the profile.
	User           *User
	Sessions       []pageSession
	Logout, Revoke string
}

type pageLink struct{ Text, URL string }

// A pageField is a field of a form. Hidden ones have a name and a value only.
type pageField struct {
	Name, Value string
	Label, Hint string
	Type        string // of the input element
	Complete    string // what browsers and password managers may fill in
	Required    bool
	Fixed       bool // for password managers: whose password it is
}

// show answers with a page. targets are where the answer to its form may be a
// redirect to.
func (s *Service) show(w http.ResponseWriter, template string, p page, targets ...string) error {
	p.App = s.cfg.AppName
	var body bytes.Buffer
	if err := pageTemplates().ExecuteTemplate(&body, template+".html", p); err != nil {
		return fmt.Errorf("auth: make a page: %w", err)
	}
	s.pageHeader(w.Header(), targets)
	w.Header().Set("Content-Length", strconv.Itoa(body.Len()))
	_, _ = w.Write(body.Bytes()) // the client is gone if this fails
	return nil
}

func (s *Service) pageHeader(h http.Header, targets []string) {
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", "default-src 'none'; style-src "+pageStyleHash()+
		"; form-action "+formAction(targets)+"; frame-ancestors 'none'; base-uri 'none'")
	// Not "no-referrer": browsers would send forms with the origin "null", which
	// cannot be told from that of a foreign page where Sec-Fetch-Site is
	// missing, as it is on sites without https.
	h.Set("Referrer-Policy", "same-origin")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
}

// formAction returns the sources of the directive form-action. Some browsers
// apply it to redirects that follow a form as well (CSP level 3, section
// 6.4.1), so places elsewhere, which are checked already, are among them.
func formAction(targets []string) string {
	sources := []string{"'self'"}
	for _, target := range targets {
		u, err := url.Parse(target)
		if err != nil || u.Scheme == "" {
			continue // a path of this site
		}
		source := u.Scheme + ":"
		if u.Scheme == "http" || u.Scheme == "https" {
			source += "//" + u.Host
		}
		if !strings.ContainsAny(source, "; ,'\"") && !slices.Contains(sources, source) {
			sources = append(sources, source)
		}
	}
	return strings.Join(sources, " ")
}

// confirmPage answers a link of a mail: a page with one button whose form
// posts to the same URL, and then goes on to target. Opening the link changes
// nothing.
func (s *Service) confirmPage(w http.ResponseWriter, target, title, text, button string) error {
	return s.show(w, "form", page{Title: title, Text: text, Button: button}, target)
}

// wantsPage reports whether a person reads the answer to a request.
func wantsPage(r *http.Request) bool {
	accept := strings.Join(r.Header["Accept"], ",")
	return r.Header.Get("Authorization") == "" && strings.Contains(accept, "text/html") &&
		!strings.Contains(accept, "application/problem+json")
}

// errorPage answers with an error in words.
func (s *Service) errorPage(w http.ResponseWriter, r *http.Request, e *Error) {
	var body bytes.Buffer
	p := page{App: s.cfg.AppName, Title: "That did not work", Text: sentence(e)}
	if err := pageTemplates().ExecuteTemplate(&body, "message.html", p); err != nil {
		problem.Write(w, r, e.Status, e.Text)
		return
	}
	s.pageHeader(w.Header(), nil)
	w.Header().Add("Vary", "Accept")
	w.Header().Set("Content-Length", strconv.Itoa(body.Len()))
	w.WriteHeader(e.Status)
	_, _ = w.Write(body.Bytes()) // the client is gone if this fails
}

// sentence says in words for people what an error is.
func sentence(e *Error) string {
	if e.Text != "" {
		return plain(e.Text)
	}
	switch e.Status {
	case http.StatusUnauthorized:
		return "You are not signed in, or a name, password or code is wrong."
	case http.StatusForbidden:
		return "You are not allowed to do this."
	case http.StatusConflict:
		return "Somebody else has this already, or it was changed meanwhile."
	case http.StatusFailedDependency:
		return "This is not possible with this account."
	case http.StatusTooManyRequests:
		return "There were too many attempts. Please try again later."
	case http.StatusServiceUnavailable:
		return "The service is busy. Please try again in a moment."
	}
	return "Something went wrong. Please try again later."
}

// plain puts texts of the contract, which programs read, into words for people
// and leaves all others alone.
func plain(text string) string {
	switch text {
	case "Login Failed: 401 Unauthorized":
		return "The name, the password or the code is wrong."
	case "Login Failed: 429 Too Many Requests":
		return "There were too many attempts. Please try again later."
	case "cross-origin request":
		return "This request came from another site."
	case "sign in again first":
		return "Please sign in again first."
	case "invalid token", "Invalid token":
		return "This link is too old or was used before."
	case "invalid redirect":
		return "This link leads to a place that is not allowed."
	case "invalid `old_password`":
		return "The old password is wrong."
	case "Passwords don't match":
		return "The two passwords are not the same."
	case "registered":
		return "Your account is ready. Please sign in."
	case "email verified":
		return "Your email address is confirmed."
	case "email changed":
		return "Your email address is changed."
	case "Password reset email sent":
		return "If there is an account of that name, a mail with a link is on its way."
	case "OTP sent":
		return "If there is an account of that name, a mail with a code is on its way."
	case "Password reset":
		return "Your password is changed. Please sign in with the new one."
	case "password changed":
		return "Your password is changed. Other devices were signed out."
	case "admin created":
		return "The administrator's account is ready. Please sign in."
	}
	return text
}

// alert is the message that a redirect to a page has brought. Links on other
// sites and in mails cannot put words into the page's mouth.
func alert(r *http.Request) string {
	if site := r.Header.Get("Sec-Fetch-Site"); site != "" && site != "same-origin" {
		return ""
	}
	return plain(shown(r, "alert", 300))
}

// shown returns a parameter of the query that is shown, on one line of at most
// n bytes.
func shown(r *http.Request, name string, n int) string {
	return truncate(oneLine(r.URL.Query().Get(name)), n)
}

// pageURL returns the path of a page with a query: name, value, ... Of what
// is too long to come back as a redirect, the query is left out.
func (s *Service) pageURL(path string, pairs ...string) string {
	full := withQuery(s.cfg.PagesPrefix+path, pairs...)
	if _, err := s.redirectTarget(full); err != nil {
		return s.cfg.PagesPrefix + path
	}
	return full
}

// visitor returns who is signed in. If nobody is, it sends the browser to
// where one signs in and comes back to path from, and returns nil.
func (s *Service) visitor(w http.ResponseWriter, r *http.Request, path string) (*User, error) {
	u, err := s.requireSession(w, r)
	if !errors.Is(err, ErrUnauthorized) {
		return u, err
	}
	pairs := []string{"redirect_uri", s.cfg.PagesPrefix + path}
	if text := alert(r); text != "" {
		pairs = append(pairs, "alert", text)
	}
	redirect(w, s.pageURL("/login", pairs...))
	return nil, nil
}
