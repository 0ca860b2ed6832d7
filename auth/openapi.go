package auth

import (
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/bedplate/bedplate/internal/openapi"
)

// OpenAPI returns three parts of an OpenAPI document (version 3.1.0): paths,
// with what [Service.At] serves below prefix, the schemas that they refer to
// as #/components/schemas/{name} and the security schemes by which requests
// are authenticated. Refusals are #/components/responses/{status}, which is for
// the rest of the document to define. The pages of [Service.PagesAt] are for
// people and in none of it.
func (s *Service) OpenAPI(prefix string) (paths, schemas, security map[string]any) {
	paths = object{}
	described := descriptions()
	for _, r := range s.routes {
		method, path := strings.ToLower(r.method), "/"+strings.Join(r.path, "/")
		item, _ := paths[prefix+path].(object)
		if item == nil {
			item = object{}
			paths[prefix+path] = item
		}
		item[method] = described[r.method+" "+path].operation(r.method, path)
	}
	return paths, answerSchemas(), object{
		"bearer": object{"type": "http", "scheme": "bearer", "description": "an auth token, or an API key"},
		"cookie": object{"type": "apiKey", "in": "cookie", "name": s.cookieName(cookieAuth)},
	}
}

// OpenAPI is [Service.OpenAPI] for a service that is not there, as before a
// deployment.
func OpenAPI(cfg Config, prefix string) (paths, schemas, security map[string]any) {
	s := &Service{cfg: cfg, site: new(url.URL)}
	if site, err := url.Parse(cfg.SiteURL); err == nil {
		s.site = site
	}
	s.routes = s.allRoutes()
	return s.OpenAPI(prefix)
}

// Security returns the requirement objects of operations for users, as they
// stand under security.
func Security() []any {
	return []any{object{"bearer": []string{}}, object{"cookie": []string{}}}
}

// object is a JSON object.
type object = map[string]any

// A description is what a document tells about a route.
type description struct {
	summary string
	body    string // members of a body of any type; a question mark stands behind what can be left out
	query   string // parameters of the query, likewise
	answer  string // "#Name" is JSON of that schema, "=text" is this text, "@type" something else; several have | between them
	user    bool   // for users
	plain   bool   // the body must be JSON
	content object // another body
	refused []int  // further statuses
}

// operation returns the operation of the route that d is about.
func (d description) operation(method, path string) object {
	var params []any
	for segment := range strings.SplitSeq(path, "/") {
		if name, ok := strings.CutPrefix(segment, "{"); ok {
			params = append(params, openapi.Path(strings.TrimSuffix(name, "}"), "as an earlier answer or a mail has it", openapi.Text()))
		}
	}
	for name := range strings.FieldsSeq(d.query) {
		optional := strings.HasSuffix(name, "?")
		p := openapi.Query(strings.TrimSuffix(name, "?"), "", openapi.Text())
		delete(p, "description")
		if !optional {
			p["required"] = true
		}
		params = append(params, p)
	}
	id := "auth." + strings.ToLower(method) + strings.NewReplacer("/", ".", "{", "", "}", "").Replace(path)
	refused := append([]int{400, 503}, d.refused...)
	if d.user {
		refused = append(refused, 401, 403)
	}
	redirects := false
	op := openapi.Operation(id, d.summary, params, answer(d.answer), refused...)
	if d.body != "" {
		schema := bodySchema(d.body)
		content := openapi.JSON(schema)
		if d.plain {
			openapi.Add(op, http.StatusUnsupportedMediaType, object{"$ref": "#/components/responses/415"})
			openapi.Add(op, http.StatusUnprocessableEntity, object{"$ref": "#/components/responses/422"})
		} else {
			content["application/x-www-form-urlencoded"] = object{"schema": schema}
			content["multipart/form-data"] = object{"schema": schema}
			redirects = true
		}
		openapi.Add(op, http.StatusRequestEntityTooLarge, object{"$ref": "#/components/responses/413"})
		op["requestBody"] = object{"required": true, "content": content}
	}
	if d.content != nil {
		op["requestBody"] = object{"required": true, "content": d.content}
	}
	if d.answer == "" && method == http.MethodGet { // it only redirects
		delete(op["responses"].(object), "200")
		redirects = true
	}
	if redirects || strings.Contains(d.query, "redirect_uri") {
		openapi.Add(op, http.StatusSeeOther, object{
			"description": "for browsers",
			"headers":     object{"Location": object{"schema": openapi.Text()}},
		})
	}
	op["tags"] = []string{"auth"}
	op["security"] = []any{}
	if d.user {
		op["security"] = Security()
	}
	return op
}

func bodySchema(members string) object {
	properties, required := object{}, []string{}
	for name := range strings.FieldsSeq(members) {
		name, optional := strings.CutSuffix(name, "?")
		kind := "string"
		if name == "rotate" || name == "recovery_codes" {
			kind = "boolean"
		}
		properties[name] = object{"type": kind}
		if !optional {
			required = append(required, name)
		}
	}
	return object{"type": "object", "properties": properties, "required": required}
}

func answer(kinds string) object {
	content := object{}
	for kind := range strings.SplitSeq(kinds, "|") {
		if kind == "" {
			return openapi.Response(nil, nil)
		}
		switch what := kind[1:]; kind[0] {
		case '#':
			content["application/json"] = object{"schema": object{"$ref": "#/components/schemas/auth." + what}}
		case '=':
			content["text/plain"] = object{"schema": object{"type": "string", "examples": []string{what}}}
		default:
			content[what] = object{"schema": openapi.Text()}
		}
	}
	return openapi.Response(content, nil)
}

// descriptions tells about all routes that there can be.
func descriptions() map[string]description {
	const (
		who    = "email_or_username? email? username? "
		finish = " redirect_uri? err_redirect_uri?"
		login  = " redirect_uri? mfa_redirect_uri? err_redirect_uri? response_type? pkce_code_challenge?"
	)
	return map[string]description{
		"POST /register":                      {summary: "Make an account", body: "email? username? password password_repeat" + finish, answer: "=registered", refused: []int{403, 429}},
		"POST /login":                         {summary: "Sign in with a password", body: who + "password" + login, answer: "#Tokens", refused: []int{401, 403, 429}},
		"POST /login_mfa":                     {summary: "Sign in with the second factor", body: "mfa_token totp? recovery_code?" + login, answer: "#Tokens", refused: []int{401, 424, 429}},
		"POST /login_anonymous":               {summary: "Make an account without a name", body: "redirect_uri?", answer: "#Tokens", refused: []int{409, 429}},
		"POST /promote_anonymous":             {summary: "Give an anonymous account a name and a password", body: "new_password new_password_repeat? new_email? new_username?" + finish, answer: "=promoted", user: true, refused: []int{409, 424, 429}},
		"POST /refresh":                       {summary: "Renew an auth token", body: "refresh_token rotate?", plain: true, answer: "#Refreshed", refused: []int{401}},
		"GET /status":                         {summary: "The caller's tokens", answer: "#Status", refused: []int{401}},
		"GET /logout":                         {summary: "End all sessions of the caller", query: "redirect_uri?", answer: "=logged out"},
		"POST /logout":                        {summary: "End a session", body: "refresh_token?", plain: true},
		"POST /token":                         {summary: "Exchange an authorization code for tokens (RFC 7636)", body: "authorization_code pkce_code_verifier", plain: true, answer: "#Tokens", refused: []int{401, 404}},
		"GET /verify_email/trigger":           {summary: "Mail the link that verifies an address once more", query: "email redirect_uri?", answer: "=Verification email sent", refused: []int{429}},
		"GET /verify_email/confirm/{token}":   {summary: "The page of that link", query: "redirect_uri?", answer: "@text/html"},
		"POST /verify_email/confirm/{token}":  {summary: "Verify an address", query: "redirect_uri?", answer: "=email verified"},
		"POST /change_email/request":          {summary: "Change the caller's address", body: "csrf_token? old_email? new_email?" + finish, answer: "=Verification mail sent to a@example.com.", user: true, refused: []int{429}},
		"POST /change_email":                  {summary: "Change the caller's address", body: "csrf_token? old_email? new_email?" + finish, answer: "=Verification mail sent to a@example.com.", user: true, refused: []int{429}},
		"GET /change_email/confirm/{token}":   {summary: "The page of the link that changes an address", query: "redirect_uri?", answer: "@text/html"},
		"POST /change_email/confirm/{token}":  {summary: "Change an address", query: "redirect_uri?", answer: "=email changed", refused: []int{409}},
		"POST /change_username":               {summary: "Change the caller's name", body: "new_username?" + finish, user: true, refused: []int{409}},
		"POST /change_password":               {summary: "Change the caller's password", body: "old_password new_password new_password_repeat?" + finish, answer: "=password changed", user: true, refused: []int{429}},
		"POST /reset_password/request":        {summary: "Mail a link that resets a password", body: who + "redirect_uri?", answer: "=Password reset email sent", refused: []int{429}},
		"POST /reset_password/update":         {summary: "Reset a password", body: "password password_repeat password_reset_token? password_reset_code?" + finish, answer: "=Password reset", refused: []int{401, 429}},
		"POST /otp/request":                   {summary: "Mail a code to sign in with", body: who + "redirect_uri?", answer: "=OTP sent", refused: []int{429}},
		"POST /otp/login":                     {summary: "Sign in with a mailed code", body: who + "code" + login, answer: "#Tokens", refused: []int{401, 403, 429}},
		"GET /totp/register":                  {summary: "Offer a secret for an authenticator app", query: "png?", answer: "#TOTPOffer", user: true, refused: []int{409}},
		"POST /totp/confirm":                  {summary: "Make the offered secret the second factor", body: "totp_url totp recovery_codes?", answer: "=TOTP enabled|#RecoveryCodes", user: true, refused: []int{409}},
		"POST /totp/unregister":               {summary: "Do without a second factor", body: "totp? recovery_code?", answer: "=TOTP disabled", user: true, refused: []int{429}},
		"GET /totp/recovery_codes":            {summary: "How many recovery codes are left", answer: "#RecoveryCodesLeft", user: true},
		"POST /totp/recovery_codes":           {summary: "Replace the recovery codes", body: "totp", answer: "#RecoveryCodes", user: true, refused: []int{429}},
		"GET /sessions":                       {summary: "Sessions of the caller", answer: "#Sessions", user: true},
		"DELETE /sessions":                    {summary: "End the caller's sessions", query: "others?", user: true},
		"DELETE /sessions/{id}":               {summary: "End one of the caller's sessions", user: true, refused: []int{404}},
		"DELETE /delete":                      {summary: "Delete the caller's account", answer: "=deleted", user: true},
		"GET /delete":                         {summary: "The same, for older clients, which send an Authorization header", answer: "=deleted", user: true, refused: []int{405}},
		"GET /avatar/{id}":                    {summary: "A user's picture", answer: "@image/*", refused: []int{404}},
		"POST /avatar":                        {summary: "Set the caller's picture", content: avatarForm(), user: true},
		"DELETE /avatar":                      {summary: "Remove the caller's picture", user: true},
		"POST /setup":                         {summary: "Make the first administrator's account", body: "token email? username? password password_repeat", answer: "=admin created"},
		"POST /api_keys":                      {summary: "Make an API key", content: openapi.JSON(object{"$ref": "#/components/schemas/auth.NewAPIKey"}), answer: "#APIKey", user: true, refused: []int{409, 413, 415}},
		"GET /api_keys":                       {summary: "API keys of the caller", answer: "#APIKeys", user: true},
		"DELETE /api_keys/{id}":               {summary: "Remove one of the caller's API keys", user: true, refused: []int{404}},
		"GET /oauth/providers":                {summary: "Where people may sign in from", answer: "#Providers"},
		"GET /oauth/identities":               {summary: "The caller's accounts at providers", answer: "#Identities", user: true},
		"DELETE /oauth/identities/{identity}": {summary: "Remove one of the caller's accounts at providers", answer: "=unlinked", user: true, refused: []int{404, 409}},
		"GET /oauth/{provider}/login":         {summary: "Go to a provider to sign in", query: "redirect_uri? mfa_redirect_uri? err_redirect_uri? response_type? pkce_code_challenge?", refused: []int{405, 424, 429}},
		"GET /oauth/{provider}/callback":      {summary: "Come back from a provider", query: "state code? error?", answer: "=logged in", refused: []int{401, 405, 409, 424}},
		"POST /oauth/{provider}/link":         {summary: "Add an account at a provider to the caller's", body: "redirect_uri?", answer: "#Link", user: true, refused: []int{405, 424, 429}},
	}
}

// answerSchemas describes the answers in JSON. Times are Unix seconds.
func answerSchemas() object {
	text, number, flag := openapi.Text(), object{"type": "integer"}, object{"type": "boolean"}
	maybe := object{"type": []string{"string", "null"}}
	list := func(name string, member object) object {
		return shape(object{name: object{"type": "array", "items": member}})
	}
	scopes := object{"type": "array", "items": shape(object{"api": text, "operations": object{"type": "array", "items": text}})}
	key := shape(object{
		"id": text, "name": text, "prefix": text, "scopes": scopes, "created": number, "expires": number,
		"seen": object{"type": []string{"integer", "null"}},
	})
	return object{
		"auth.Tokens":            shape(object{"auth_token": text, "refresh_token": text, "csrf_token": text}),
		"auth.Refreshed":         object{"type": "object", "required": []string{"auth_token", "csrf_token"}, "properties": object{"auth_token": text, "refresh_token": text, "csrf_token": text}},
		"auth.Status":            shape(object{"auth_token": maybe, "refresh_token": maybe, "csrf_token": maybe}),
		"auth.TOTPOffer":         shape(object{"totp_url": text, "png": maybe}),
		"auth.RecoveryCodes":     list("recovery_codes", text),
		"auth.RecoveryCodesLeft": shape(object{"remaining": number}),
		"auth.Sessions": list("sessions", shape(object{
			"id": text, "current": flag, "created": number, "seen": number, "expires": number, "method": text, "cookie": flag, "device": text, "address": text,
		})),
		"auth.APIKey":  object{"allOf": []any{key, shape(object{"key": text})}},
		"auth.APIKeys": list("api_keys", key),
		"auth.NewAPIKey": object{
			"type": "object", "required": []string{"name", "scopes"}, "additionalProperties": false,
			"properties": object{
				"name": text, "scopes": scopes,
				"expires_in": object{"type": "integer", "description": "seconds", "minimum": 1, "maximum": int64(maxAPIKeyTTL / time.Second)},
			},
		},
		"auth.Providers":  list("providers", object{"type": "array", "items": text}),
		"auth.Identities": list("identities", shape(object{"id": text, "provider": text, "issuer": text, "subject": text, "created": number, "seen": number})),
		"auth.Link":       shape(object{"url": text}),
	}
}

// shape describes an object that has all of these members.
func shape(properties object) object {
	return object{"type": "object", "properties": properties, "required": slices.Sorted(maps.Keys(properties))}
}

func avatarForm() object {
	file := object{"type": "string", "contentMediaType": "application/octet-stream"}
	return object{"multipart/form-data": object{"schema": shape(object{"file": file})}}
}
