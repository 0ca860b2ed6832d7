package auth

import (
	"errors"
	"net/http"
	"strconv"
)

// A flow is where a sign-in goes when it is done, as the pages hand it on to
// each other.
type flow struct {
	loginParams
	query []string // the same: name, value, ...
}

// flow reads it from the query of a page and checks it.
func (s *Service) flow(r *http.Request) (to flow, err error) {
	f, err := readQuery(r)
	if err != nil {
		return to, err
	}
	if to.loginParams, err = s.loginParams(f); err != nil {
		return to, err
	}
	add := func(name, value string) {
		if value != "" {
			to.query = append(to.query, name, value)
		}
	}
	add("redirect_uri", to.redirect)
	add("mfa_redirect_uri", to.mfaRedirect)
	if to.challenge != "" {
		add("response_type", "code")
		add("pkce_code_challenge", to.challenge)
	}
	return to, nil
}

// hidden returns the fields of a form that signs in: where to go, also after a
// failure. Who comes from nowhere goes to the profile.
func (s *Service) hidden(to flow, failure string) []pageField {
	fields := []pageField{{Name: "err_redirect_uri", Value: failure}}
	if to.redirect == "" {
		fields = append(fields, pageField{Name: "redirect_uri", Value: s.pageURL("/profile")})
	}
	for i := 0; i+1 < len(to.query); i += 2 {
		fields = append(fields, pageField{Name: to.query[i], Value: to.query[i+1]})
	}
	return fields
}

// then returns the hidden fields of other forms.
func then(success, failure string) []pageField {
	return []pageField{{Name: "redirect_uri", Value: success}, {Name: "err_redirect_uri", Value: failure}}
}

// serveLoginForm is the page login. Who is signed in already goes to the
// profile, unless a native client asks for a code.
func (s *Service) serveLoginForm(w http.ResponseWriter, r *http.Request) error {
	to, err := s.flow(r)
	if err != nil {
		return err
	}
	message := alert(r)
	if to.challenge == "" {
		switch _, err := s.requireSession(w, r); {
		case err == nil && message == "":
			redirect(w, s.pageURL("/profile"))
			return nil
		case err == nil:
			redirect(w, s.pageURL("/profile", "alert", message))
			return nil
		case !errors.Is(err, ErrUnauthorized):
			return err
		}
	}
	p := page{
		Title:  "Sign in",
		Alert:  message,
		Action: s.cfg.Prefix + "/login",
		Hidden: s.hidden(to, s.pageURL("/login", to.query...)),
		Fields: []pageField{s.nameField(""), passwordField},
		Button: "Sign in",
	}
	for _, x := range s.providerList() {
		query := to.query
		if to.redirect == "" {
			query = append([]string{"redirect_uri", s.pageURL("/profile")}, query...)
		}
		p.Providers = append(p.Providers, pageLink{x[1], withQuery(s.cfg.Prefix+"/oauth/"+x[0]+"/login", query...)})
	}
	if s.cfg.OTP {
		p.Links = append(p.Links, pageLink{"Sign in with a mailed code", s.pageURL("/otp/request", to.query...)})
	}
	p.Links = append(p.Links, pageLink{"Forgot your password?", s.pageURL("/reset_password/request", to.query...)})
	if !s.cfg.NoPasswords {
		p.Links = append(p.Links, pageLink{"Make an account", s.pageURL("/register", to.query...)})
	}
	return s.show(w, "form", p, to.redirect, to.mfaRedirect)
}

// nameField asks who somebody is.
func (s *Service) nameField(value string) pageField {
	f := pageField{Name: "email_or_username", Value: value, Label: "Email address or username", Type: "text", Complete: "username", Required: true}
	switch s.cfg.Identifier {
	case OnlyEmail:
		f.Label = "Email address"
	case OnlyUsername:
		f.Label = "Username"
	}
	return f
}

var passwordField = pageField{Name: "password", Label: "Password", Type: "password", Complete: "current-password", Required: true}

// newPasswordFields ask for a new password, twice.
func (s *Service) newPasswordFields(name string) []pageField {
	hint := "At least " + strconv.Itoa(s.cfg.Password.MinLength) + " characters."
	return []pageField{
		{Name: name, Label: "New password", Hint: hint, Type: "password", Complete: "new-password", Required: true},
		{Name: name + "_repeat", Label: "New password again", Type: "password", Complete: "new-password", Required: true},
	}
}

// accountFields ask for what Config.Identifier says that a new account needs
// or may have.
func (s *Service) accountFields() (fields []pageField) {
	policy := s.cfg.Identifier
	if policy != OnlyUsername {
		complete := "email"
		if policy == OnlyEmail || policy == RequireEmail {
			complete = "username" // this is what passwords are stored for
		}
		f := pageField{Name: "email", Label: "Email address", Type: "email", Complete: complete, Required: true}
		if policy == RequireUsername {
			f.Label, f.Required = "Email address (optional)", false
		}
		fields = append(fields, f)
	}
	if policy != OnlyEmail {
		f := pageField{Name: "username", Label: "Username", Type: "text", Complete: "username", Required: true}
		if policy == RequireEmail {
			f.Label, f.Complete, f.Required = "Username (optional)", "off", false
		}
		fields = append(fields, f)
	}
	return append(fields, s.newPasswordFields("password")...)
}

// serveLoginMFAForm is the page login_mfa, to which a sign-in with a right
// password goes.
func (s *Service) serveLoginMFAForm(w http.ResponseWriter, r *http.Request) error {
	to, err := s.flow(r)
	if err != nil {
		return err
	}
	token := r.URL.Query().Get("mfa_token")
	if !isToken(token) {
		redirect(w, s.pageURL("/login", to.query...))
		return nil
	}
	p := page{
		Title:  "One more step",
		Alert:  alert(r),
		Action: s.cfg.Prefix + "/login_mfa",
		Hidden: append(s.hidden(to, s.pageURL("/login", to.query...)), pageField{Name: "mfa_token", Value: token}),
		Fields: []pageField{{
			Name: "totp", Label: "Code", Hint: "From your authenticator app, or one of your recovery codes.",
			Type: "text", Complete: "one-time-code", Required: true,
		}},
		Button: "Sign in",
		Links:  []pageLink{{"Start again", s.pageURL("/login", to.query...)}},
	}
	return s.show(w, "form", p, to.redirect, to.mfaRedirect)
}

// isToken reports whether s looks like one of our one-time tokens.
func isToken(s string) bool {
	for _, c := range []byte(s) {
		if !('0' <= c && c <= '9' || 'A' <= c && c <= 'Z' || 'a' <= c && c <= 'z') {
			return false
		}
	}
	return s != "" && len(s) <= 128
}

// serveOTPRequestForm is the page otp/request. The code is asked for next.
func (s *Service) serveOTPRequestForm(w http.ResponseWriter, r *http.Request) error {
	to, err := s.flow(r)
	if err != nil {
		return err
	}
	return s.show(w, "form", page{
		Title:  "Sign in with a mailed code",
		Alert:  alert(r),
		Text:   "You get a mail with a code that is good for " + strconv.Itoa(minutes(otpTTL)) + " minutes.",
		Action: s.cfg.Prefix + "/otp/request",
		Hidden: then(s.pageURL("/otp/login", to.query...), s.pageURL("/otp/request", to.query...)),
		Fields: []pageField{s.nameField("")},
		Button: "Send the code",
		Links:  []pageLink{{"Back to sign-in", s.pageURL("/login", to.query...)}},
	})
}

// serveOTPLoginForm is the page otp/login, to which the mail links with the
// name and the code. Opening it uses nothing up.
func (s *Service) serveOTPLoginForm(w http.ResponseWriter, r *http.Request) error {
	to, err := s.flow(r)
	if err != nil {
		return err
	}
	kind, who := "email", shown(r, "email", 254)
	if who == "" {
		kind, who = "username", shown(r, "username", 254)
	}
	failure := to.query
	if who != "" {
		failure = append([]string{kind, who}, failure...)
	}
	p := page{
		Title:  "Enter the code",
		Alert:  alert(r),
		Action: s.cfg.Prefix + "/otp/login",
		Hidden: s.hidden(to, s.pageURL("/otp/login", failure...)),
		Fields: []pageField{s.nameField(who), {
			Name: "code", Value: shown(r, "code", 16), Label: "Code", Hint: "From the mail that we have sent.",
			Type: "text", Complete: "one-time-code", Required: true,
		}},
		Button: "Sign in",
		Links:  []pageLink{{"Send another code", s.pageURL("/otp/request", to.query...)}},
	}
	return s.show(w, "form", p, to.redirect, to.mfaRedirect)
}

// serveRegisterForm is the page register. It goes to the sign-in, also behind
// the link in the mail.
func (s *Service) serveRegisterForm(w http.ResponseWriter, r *http.Request) error {
	to, err := s.flow(r)
	if err != nil {
		return err
	}
	return s.show(w, "form", page{
		Title:  "Make an account",
		Alert:  alert(r),
		Action: s.cfg.Prefix + "/register",
		Hidden: then(s.pageURL("/login", to.query...), s.pageURL("/register", to.query...)),
		Fields: s.accountFields(),
		Button: "Make the account",
		Links:  []pageLink{{"I have an account", s.pageURL("/login", to.query...)}},
	})
}

// serveResetRequestForm is the page reset_password/request.
func (s *Service) serveResetRequestForm(w http.ResponseWriter, r *http.Request) error {
	to, err := s.flow(r)
	if err != nil {
		return err
	}
	return s.show(w, "form", page{
		Title:  "Forgot your password?",
		Alert:  alert(r),
		Text:   "You get a mail with a link to choose a new one.",
		Action: s.cfg.Prefix + "/reset_password/request",
		Hidden: then(s.pageURL("/login", to.query...), s.pageURL("/reset_password/request", to.query...)),
		Fields: []pageField{s.nameField("")},
		Button: "Send the link",
		Links:  []pageLink{{"Back to sign-in", s.pageURL("/login", to.query...)}},
	})
}

// serveResetUpdateForm is the page reset_password/update/{token}, the link in
// the mail. Opening it uses nothing up.
func (s *Service) serveResetUpdateForm(w http.ResponseWriter, r *http.Request) error {
	target, again, err := s.pageTarget(r)
	if err != nil {
		return err
	}
	token := r.PathValue("token")
	if !isToken(token) {
		return ErrNotFound
	}
	if target == "" {
		target = s.pageURL("/login")
	}
	return s.show(w, "form", page{
		Title:  "Choose a new password",
		Alert:  alert(r),
		Action: s.cfg.Prefix + "/reset_password/update",
		Hidden: append(then(target, s.pageURL("/reset_password/update/"+token, again...)),
			pageField{Name: "password_reset_token", Value: token}),
		Fields: s.newPasswordFields("password"),
		Button: "Change the password",
	}, target)
}

// pageTarget returns where the query of a page wants to go afterwards,
// checked, and as a query again.
func (s *Service) pageTarget(r *http.Request) (target string, query []string, err error) {
	f, err := readQuery(r)
	if err != nil {
		return "", nil, err
	}
	if target, err = s.target(f, "redirect_uri"); err == nil && target != "" {
		query = []string{"redirect_uri", target}
	}
	return target, query, err
}

// serveChangePasswordForm is the page change_password.
func (s *Service) serveChangePasswordForm(w http.ResponseWriter, r *http.Request) error {
	target, again, err := s.pageTarget(r)
	if err != nil {
		return err
	}
	u, err := s.visitor(w, r, "/change_password")
	if u == nil {
		return err
	}
	if target == "" {
		target = s.pageURL("/profile")
	}
	old := passwordField
	old.Name, old.Label = "old_password", "Old password"
	account := u.Email
	if account == "" {
		account = u.Username
	}
	return s.show(w, "form", page{
		Title:  "Change your password",
		Alert:  alert(r),
		Text:   "You stay signed in here; other devices are signed out.",
		Action: s.cfg.Prefix + "/change_password",
		Hidden: then(target, s.pageURL("/change_password", again...)),
		Fields: append([]pageField{
			{Name: "account", Value: account, Label: "Account", Type: "text", Complete: "username", Fixed: true}, old,
		}, s.newPasswordFields("new_password")...),
		Button: "Change the password",
		Links:  []pageLink{{"Back to your account", s.pageURL("/profile")}},
	}, target)
}

// serveSetupForm is the page setup/{token}; see SetupLink.
func (s *Service) serveSetupForm(w http.ResponseWriter, r *http.Request) error {
	token := r.PathValue("token")
	if !isToken(token) {
		return ErrNotFound
	}
	return s.show(w, "form", page{
		Title:  "Make the first administrator",
		Alert:  alert(r),
		Action: s.cfg.Prefix + "/setup",
		Hidden: []pageField{{Name: "token", Value: token}},
		Fields: s.accountFields(),
		Button: "Make the account",
	})
}
