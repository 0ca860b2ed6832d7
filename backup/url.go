package backup

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strings"
)

// plaintext is the parameter that allows what is copied to travel without encryption to another
// machine.
const plaintext = "plaintext"

// parameters are those that the URLs of a scheme may have. What is misspelt would be without
// effect, which may be that of a protection.
func parameters(scheme string) []string {
	switch scheme {
	case "s3":
		return []string{
			"endpoint", "region", "forcePathStyle", "signPayload", "signAcceptEncoding", "requireContentMD5",
			"putObjectContentMD5", "concurrency", "partSize", "storageClass", "sseKmsKeyId", plaintext,
		}
	case "sftp":
		return []string{"hostKey", "keyPath"}
	case "abs":
		return []string{"endpoint", plaintext}
	case "nats":
		return []string{"ca", "cert", "key", plaintext}
	case "webdav", "webdavs":
		return []string{plaintext}
	default:
		return nil
	}
}

// checkURL returns what is wrong with the URL of a replica. It never repeats the URL, which may
// hold a password.
func checkURL(text string) (mistakes []string) {
	bad := func(format string, args ...any) { mistakes = append(mistakes, "URL: "+fmt.Sprintf(format, args...)) }
	if text == "" {
		return []string{"URL is missing"}
	}
	u, err := url.Parse(text)
	if err != nil || u.Scheme == "" || u.Opaque != "" {
		return []string{"URL is not one, such as s3://bucket/prefix or file:///directory"}
	}
	if !strings.HasPrefix(text, u.Scheme) {
		bad("%s:// is written in lower case", u.Scheme)
	}
	if !slices.Contains(Schemes(), u.Scheme) {
		name := u.Scheme
		if name == "webdavs" {
			name = "webdav"
		}
		bad("no client for %s:// is linked in; import _ \"github.com/bedplate/bedplate/backup/%s\"", u.Scheme, name)
	}
	if u.Fragment != "" {
		bad("a fragment has no meaning")
	}
	for _, mistake := range checkParameters(u) {
		bad("%s", mistake)
	}
	if u.Scheme != "file" && u.Host == "" {
		bad("the part behind %s:// is missing", u.Scheme)
		return mistakes
	}
	for _, mistake := range checkScheme(u) {
		bad("%s", mistake)
	}
	return mistakes
}

func checkParameters(u *url.URL) (mistakes []string) {
	bad := func(format string, args ...any) { mistakes = append(mistakes, fmt.Sprintf(format, args...)) }
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		bad("the parameters behind the question mark cannot be understood")
		return mistakes
	}
	known := parameters(u.Scheme)
	for _, name := range slices.Sorted(maps.Keys(query)) {
		switch {
		case isSecret(name):
			bad("the parameter %q has no place in it: %s", name, secretHint(u.Scheme))
		case !slices.Contains(known, name) && len(known) == 0:
			bad("a replica of kind %s has no parameters", u.Scheme)
			return mistakes
		case !slices.Contains(known, name):
			bad("the parameter %q is not known; there are %s", name, strings.Join(known, ", "))
		case len(query[name]) > 1:
			bad("the parameter %q is there more than once", name)
		case query[name][0] == "":
			bad("the parameter %q has no value", name)
		case name == plaintext && query[name][0] != "true":
			bad("the parameter %q can only be true", name)
		}
	}
	return mistakes
}

// isSecret reports whether a parameter of that name would hold a secret, or belong to one. URLs get
// into logs, lists of processes and states of what is replicated.
func isSecret(name string) bool {
	name = strings.ToLower(strings.NewReplacer("-", "", "_", "").Replace(name))
	return slices.ContainsFunc([]string{"secret", "password", "passwd", "passphrase", "token", "accesskey", "accountkey", "credential", "ssecustomer"},
		func(word string) bool { return strings.Contains(name, word) })
}

// secretHint is what to do instead.
func secretHint(scheme string) string {
	if scheme == "s3" {
		return "let Config.Credentials return the credentials; sseKmsKeyId names a key for encryption that the store has, there are no others"
	}
	return "let Config.Credentials return it"
}

// checkScheme checks what is particular to a scheme.
func checkScheme(u *url.URL) (mistakes []string) {
	bad := func(format string, args ...any) { mistakes = append(mistakes, fmt.Sprintf(format, args...)) }
	_, hasPassword := u.User.Password()
	query := u.Query()
	switch u.Scheme {
	case "file":
		if u.Host != "" || u.User != nil || !path.IsAbs(u.Path) || path.Clean(u.Path) == "/" {
			bad("the path of a file replica has to be absolute, with three slashes as in file:///var/backups/app")
		}
	case "s3":
		if u.User != nil {
			bad("credentials have no place in it; let Config.Credentials return AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
		}
		if u.Port() != "" || !bucketName.MatchString(u.Host) {
			bad("%q is no name of a bucket; the address of a store is the parameter endpoint", u.Host)
		}
		mistakes = append(mistakes, checkEndpoint(query)...)
	case "sftp":
		if u.User.Username() == "" {
			bad("the user is missing, as in sftp://user@host/path")
		}
		if hasPassword {
			bad("a password has no place in it; let Config.Credentials return SFTP_PASSWORD, or give the path of a key as keyPath")
		}
		if path.Clean("/"+u.Path) == "/" {
			bad("the directory is missing, as in sftp://user@host/path")
		}
		if k := query.Get("keyPath"); k != "" && !path.IsAbs(k) {
			bad("keyPath has to be absolute")
		}
		mistakes = append(mistakes, checkHostKey(query.Get("hostKey"))...)
	case "gs":
		if u.User != nil {
			bad("credentials have no place in it; let Config.Credentials return GOOGLE_APPLICATION_CREDENTIALS, the path of a file")
		}
		if u.Port() != "" || !bucketName.MatchString(u.Host) {
			bad("%q is no name of a bucket", u.Host)
		}
	case "abs":
		if hasPassword {
			bad("a key has no place in it; let Config.Credentials return LITESTREAM_AZURE_ACCOUNT_KEY or LITESTREAM_AZURE_SAS_TOKEN")
		}
		if u.User.Username() == "" {
			bad("the account is missing, as in abs://account@container/prefix")
		}
		if u.Port() != "" || !containerName.MatchString(u.Host) {
			bad("%q is no name of a container", u.Host)
		}
		mistakes = append(mistakes, checkEndpoint(query)...)
	case "nats":
		if u.User != nil {
			bad("credentials have no place in it; let Config.Credentials return NATS_USER and NATS_PASSWORD, NATS_TOKEN, or NATS_CREDS, the path of a file")
		}
		if path.Clean("/"+u.Path) == "/" {
			bad("the bucket is missing, as in nats://host/bucket")
		}
		for _, name := range []string{"ca", "cert", "key"} {
			if v := query.Get(name); v != "" && !path.IsAbs(v) {
				bad("%s has to be an absolute path", name)
			}
		}
		if (query.Get("cert") == "") != (query.Get("key") == "") {
			bad("cert and key go together")
		}
	case "webdav", "webdavs":
		if hasPassword {
			bad("a password has no place in it; let Config.Credentials return WEBDAV_PASSWORD")
		}
		if u.Scheme == "webdav" && !isLoopback(u.Hostname()) && query.Get(plaintext) == "" {
			bad("the password and the database would travel unencrypted; use webdavs://, or allow it with %s=true", plaintext)
		}
	default:
	}
	return mistakes
}

// Names as the stores have them
// (https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html,
// https://cloud.google.com/storage/docs/buckets#naming,
// https://learn.microsoft.com/en-us/rest/api/storageservices/naming-and-referencing-containers--blobs--and-metadata).
var (
	bucketName    = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]$`)
	containerName = regexp.MustCompile(`^(\$root|\$logs|\$web|[a-z0-9]([a-z0-9-]{1,61})[a-z0-9])$`)
)

// checkEndpoint checks the address of a store. It has to have a scheme, because what Litestream
// would take for that depends on the address.
func checkEndpoint(query url.Values) (mistakes []string) {
	text := query.Get("endpoint")
	if text == "" {
		return nil
	}
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "":
		return []string{"endpoint has to be a URL, such as https://minio.example.com"}
	case u.User != nil || u.RawQuery != "" || u.Fragment != "":
		return []string{"endpoint has to be an address only, without credentials and parameters"}
	case u.Scheme == "http" && !isLoopback(u.Hostname()) && query.Get(plaintext) == "":
		return []string{"the database would travel unencrypted; use https in endpoint, or allow it with " + plaintext + "=true"}
	}
	return nil
}

// checkHostKey checks the public key of an SFTP server: its type and its base64 text, as in
// known_hosts (RFC 4253, section 6.6).
func checkHostKey(text string) (mistakes []string) {
	if text == "" {
		return []string{"hostKey is missing: the public key of the server, as ssh-keyscan prints it behind the name; without it anybody could take the server's place"}
	}
	kind, encoded, _ := strings.Cut(strings.TrimSpace(text), " ")
	// A plus sign that is not escaped is a space in a URL.
	key, err := base64.StdEncoding.DecodeString(strings.ReplaceAll(encoded, " ", "+"))
	if err != nil || len(key) < 4 || !strings.HasPrefix(string(key[4:]), kind) || int(binary.BigEndian.Uint32(key)) != len(kind) || kind == "" {
		return []string{"hostKey is no public key, such as \"ssh-ed25519 AAAA…\" without a comment"}
	}
	return nil
}

// isLoopback reports whether a host is this machine.
func isLoopback(host string) bool {
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return true
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.Unmap().IsLoopback()
}

// identity tells replicas apart: the same for two URLs that differ in credentials only, or in how
// they are written.
func identity(text string) string {
	u, err := url.Parse(text)
	if err != nil {
		return "" // New has refused it
	}
	scheme, host, user := u.Scheme, strings.ToLower(u.Host), ""
	switch scheme {
	case "sftp":
		user, host = u.User.Username(), withPort(host, "22")
	case "abs":
		user = u.User.Username()
	case "nats":
		host = withPort(host, "4222")
	case "webdav", "webdavs":
		scheme = "webdav"
	default:
	}
	endpoint := strings.TrimRight(strings.ToLower(u.Query().Get("endpoint")), "/")
	sum := sha256.Sum256([]byte(strings.Join([]string{scheme, user, host, path.Clean("/" + u.Path), endpoint}, "\n")))
	return hex.EncodeToString(sum[:16])
}

func withPort(host, port string) string {
	if _, _, err := net.SplitHostPort(host); err == nil {
		return host
	}
	return net.JoinHostPort(strings.Trim(host, "[]"), port)
}
