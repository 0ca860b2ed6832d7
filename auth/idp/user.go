package idp

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/bedplate/bedplate/auth"
)

// identity reads a user by the fields of the provider's kind. Only the id is
// needed; what else is not as it should be is left out.
func (p *Provider) identity(user map[string]any) (auth.Identity, error) {
	f := p.kind.fields
	id := auth.Identity{Subject: text(user, f.id), Username: short(text(user, f.username), 255)}
	if !validSubject(id.Subject) {
		return auth.Identity{}, fmt.Errorf("%w: a user without an id", ErrRefused)
	}
	if id.Email = address(text(user, f.email)); id.Email != "" {
		id.EmailVerified = p.verified(user)
	}
	if f.avatarURL != "" {
		id.AvatarURL = fill(f.avatarURL, user)
	} else {
		id.AvatarURL = picture(text(user, f.avatar))
	}
	return id, nil
}

// verified reports whether the provider vouches for the address: with true and
// nothing like it, apart from what its kind is known for.
func (p *Provider) verified(user map[string]any) bool {
	name := p.kind.fields.verified
	value, there := user[name]
	if name == "" || !there {
		return p.cfg.TrustEmail || p.plain()
	}
	switch v := value.(type) {
	case bool:
		return v
	case string:
		return slices.Contains(p.kind.alsoTrue, v)
	}
	return false
}

// userInfo fetches the user with an access token.
func (p *Provider) userInfo(ctx context.Context, m metadata, access string) (map[string]any, error) {
	header := p.bearer(access)
	user := map[string]any{}
	if err := p.fetchNumbers(ctx, m.UserURL, header, &user); err != nil {
		return nil, err
	}
	if user == nil {
		return nil, fmt.Errorf("%w: null instead of a user", ErrRefused)
	}
	if p.kind.mails {
		return user, p.primaryMail(ctx, m.UserURL, header, user)
	}
	return user, nil
}

// primaryMail adds the primary address to a user of GitHub.
func (p *Provider) primaryMail(ctx context.Context, userURL string, header http.Header, user map[string]any) error {
	delete(user, "email") // the public one, which nobody has verified
	var mails []struct {
		Email    string `json:"email"`
		Primary  bool   `json:"primary"`
		Verified bool   `json:"verified"`
	}
	if err := p.fetchNumbers(ctx, userURL+"/emails", header, &mails); err != nil {
		return err
	}
	for _, m := range mails {
		if m.Primary {
			user["email"], user["verified"] = m.Email, m.Verified
		}
	}
	return nil
}

func (p *Provider) bearer(access string) http.Header {
	scheme := p.kind.scheme
	if scheme == "" {
		scheme = "Bearer"
	}
	return http.Header{"Authorization": {scheme + " " + access}}
}

// fetchNumbers is getJSON for ids that may be numbers too large for floats.
func (p *Provider) fetchNumbers(ctx context.Context, address string, header http.Header, v any) error {
	body, err := get(ctx, p.client, address, header)
	if err != nil {
		return err
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	if err := d.Decode(v); err != nil {
		return fmt.Errorf("%w: no JSON as expected from %s", ErrRefused, address)
	}
	return nil
}

// text returns a string, or an integer as one, "" if there is neither or no
// path.
func text(object map[string]any, path string) string {
	if path == "" {
		return ""
	}
	first, rest, more := strings.Cut(path, ".")
	if more {
		inner, _ := object[first].(map[string]any)
		return text(inner, rest)
	}
	switch v := object[first].(type) {
	case string:
		return v
	case json.Number:
		if digits.MatchString(v.String()) {
			return v.String()
		}
	}
	return ""
}

var digits = regexp.MustCompile(`^[0-9]{1,30}$`)

var (
	place     = regexp.MustCompile(`\{[a-z_]+\}`)
	placeable = regexp.MustCompile(`^[0-9A-Za-z_-]+(/[0-9A-Za-z_-]+)*$`)
)

// fill puts fields into a URL. If one is missing, or could lead elsewhere,
// there is none.
func fill(template string, user map[string]any) string {
	complete := true
	filled := place.ReplaceAllStringFunc(template, func(name string) string {
		value := text(user, name[1:len(name)-1])
		complete = complete && len(value) <= 128 && placeable.MatchString(value)
		return value
	})
	if !complete {
		return ""
	}
	return filled
}

// address returns a mail address that has the shape of one.
func address(s string) string {
	local, domain, ok := strings.Cut(s, "@")
	if !ok || local == "" || domain == "" {
		return ""
	}
	return short(s, 254)
}

// picture returns an https URL.
func picture(s string) string {
	if u, err := url.Parse(s); err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil {
		return ""
	}
	return short(s, 2048)
}

// short returns a text that is no longer and has no control characters.
func short(s string, limit int) string {
	if len(s) > limit || strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f || r == '\uFFFD' }) {
		return ""
	}
	return s
}
