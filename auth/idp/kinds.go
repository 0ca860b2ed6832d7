package idp

// A kind is what there is to know about a provider.
type kind struct {
	number  int // in _user.provider_id
	display string
	scopes  []string
	fields  fields

	// OpenID Connect.
	issuer     string
	algorithms []string

	// OAuth 2.0 without it.
	site     string // makes the ids of its users unique
	authURL  string
	tokenURL string
	userURL  string
	scheme   string // of the header Authorization, default Bearer

	inParams   bool              // the secret goes into the body, not into a header
	parameters map[string]string // of the authorization URL, beyond the usual
	alsoTrue   []string          // strings that stand for a verified address
	mails      bool              // addresses are a resource of their own, below that of the user
	minted     bool              // the secret is a token that we sign
}

// fields say where to find what in the user information. Dots lead into
// objects.
type fields struct {
	id, email, verified, username, avatar string

	// avatarURL is a URL in which {names} stand for fields.
	avatarURL string
}

var standard = fields{
	id: "sub", email: "email", verified: "email_verified", username: "preferred_username", avatar: "picture",
}

var standardScopes = []string{"openid", "email", "profile"}

// generic is the kind of any provider of OpenID Connect.
const generic = "oidc0"

// kinds are never changed.
var kinds = map[string]kind{
	generic: {
		number: 2, display: "OpenID Connect", scopes: standardScopes, fields: standard,
		algorithms: []string{"RS256", "ES256", "EdDSA"},
	},
	"apple": {
		number: 9, display: "Apple", scopes: []string{"openid"}, fields: standard,
		issuer: "https://appleid.apple.com", algorithms: []string{"RS256"}, inParams: true, minted: true,
		parameters: map[string]string{"response_mode": "query"}, alsoTrue: []string{"true"},
	},
	"discord": {
		number: 10, display: "Discord", scopes: []string{"identify", "email"},
		fields: fields{
			id: "id", email: "email", verified: "verified", username: "username",
			avatarURL: "https://cdn.discordapp.com/avatars/{id}/{avatar}.png",
		},
		site:     "https://discord.com",
		authURL:  "https://discord.com/oauth2/authorize",
		tokenURL: "https://discord.com/api/oauth2/token",
		userURL:  "https://discord.com/api/v10/users/@me",
	},
	"gitlab": {
		number: 11, display: "GitLab", scopes: standardScopes, fields: standard,
		issuer: "https://gitlab.com", algorithms: []string{"RS256"},
	},
	"google": {
		number: 12, display: "Google", scopes: standardScopes, fields: standard,
		issuer: "https://accounts.google.com", algorithms: []string{"RS256"}, inParams: true,
	},
	"facebook": {
		number: 13, display: "Facebook", scopes: []string{"email", "public_profile"},
		fields:   fields{id: "id", email: "email", avatar: "picture.data.url"},
		site:     "https://www.facebook.com",
		authURL:  "https://www.facebook.com/v23.0/dialog/oauth",
		tokenURL: "https://graph.facebook.com/v23.0/oauth/access_token",
		userURL:  "https://graph.facebook.com/v23.0/me?fields=id,email,picture.type(large)",
		inParams: true,
	},
	"microsoft": {
		// Addresses are what the administrators of a tenant say, and the
		// preferred name is one. The optional claim xms_edov tells that the
		// tenant owns the address's domain.
		number: 14, display: "Microsoft", scopes: standardScopes,
		fields: fields{id: "sub", email: "email", verified: "xms_edov", avatar: "picture"},
		issuer: "https://login.microsoftonline.com/" + tenant + "/v2.0", algorithms: []string{"RS256"}, inParams: true,
		alsoTrue: []string{"1", "true"},
	},
	"twitch": {
		number: 15, display: "Twitch", scopes: []string{"openid", "user:read:email"}, fields: standard,
		issuer: "https://id.twitch.tv/oauth2", algorithms: []string{"RS256"}, inParams: true,
		parameters: map[string]string{
			"claims": `{"id_token":{"email":null,"email_verified":null,"picture":null,"preferred_username":null}}`,
		},
	},
	"yandex": {
		number: 16, display: "Yandex", scopes: []string{"login:email", "login:info", "login:avatar"},
		fields: fields{
			id: "id", email: "default_email", username: "login",
			avatarURL: "https://avatars.yandex.net/get-yapic/{default_avatar_id}/islands-200",
		},
		site:     "https://yandex.com",
		authURL:  "https://oauth.yandex.com/authorize",
		tokenURL: "https://oauth.yandex.com/token",
		userURL:  "https://login.yandex.ru/info?format=json",
		scheme:   "OAuth",
	},
	"github": {
		number: 17, display: "GitHub", scopes: []string{"read:user", "user:email"},
		fields:   fields{id: "id", email: "email", verified: "verified", username: "login", avatar: "avatar_url"},
		site:     "https://github.com",
		authURL:  "https://github.com/login/oauth/authorize",
		tokenURL: "https://github.com/login/oauth/access_token",
		userURL:  "https://api.github.com/user",
		inParams: true, mails: true,
	},
}
