package archtest

// Bedplate returns the layering of this module.
//
//	layer 3   cmd/refserver  examples/*   any public package
//	layer 2   bedplate (the root)         sqlite, records, auth, realtime
//	layer 1   records auth realtime       sqlite, internal/*        no edge between siblings
//	          tlsauto backup              internal/*
//	layer 0   sqlite                      internal/*, mattn/go-sqlite3
//	          internal/*                  small libraries, nothing public
//
// Siblings are joined by the root, with values and small funcs. A row may name a package that
// does not exist yet: then its place is settled before its code is.
func Bedplate() Layering {
	public := []string{".", "sqlite", "records", "records/s3files", "auth/...", "realtime/...", "tlsauto/...", "backup/..."}
	internal := []string{
		"internal/geo", "internal/httpx", "internal/iox", "internal/jsonx", "internal/jwt", "internal/listquery", "internal/openapi",
		"internal/password", "internal/problem", "internal/rule", "internal/seal", "internal/sqltoken",
		"internal/totp",
	}
	all := append(append([]string{}, public...), internal...)
	database := append([]string{"sqlite"}, internal...)

	return Layering{
		Module: "github.com/bedplate/bedplate",
		Rows: []Row{
			// Layer 3: programs.
			{
				Packages:  []string{"cmd/refserver/..."},
				May:       append([]string{"cmd/refserver/..."}, all...),
				Libraries: []string{"github.com/alecthomas/kong", "github.com/goccy/go-yaml"},
			},
			{Packages: []string{"examples/backup"}, May: public, Libraries: []string{"github.com/mattn/go-sqlite3"}},
			{Packages: []string{"examples/tls"}, May: public, Libraries: []string{"golang.org/x/crypto/acme"}},
			{Packages: []string{"examples/*"}, May: public},
			// Tests of the finished programs; they talk to them over HTTP and read the file.
			{Packages: []string{"conformance"}},
			{Packages: []string{"internal/crash"}, TestMay: []string{"sqlite"}},
			{Packages: []string{"internal/backupproof"}, TestMay: []string{"sqlite", "backup", "backup/file", "backup/s3"}},

			// Layer 2: the root joins the parts.
			{Packages: []string{"."}, May: append([]string{"records", "auth", "realtime"}, database...)},

			// Layer 1: the parts, which do not know each other.
			{
				Packages: []string{"records"}, May: database,
				Libraries: []string{"golang.org/x/crypto/chacha20poly1305", "github.com/go-playground/validator/v10"},
				TestMay:   []string{"records/s3files"},
			},
			{
				Packages: []string{"records/s3files"}, May: internal,
				Libraries: []string{
					"github.com/aws/aws-sdk-go-v2/aws", "github.com/aws/aws-sdk-go-v2/credentials",
					"github.com/aws/aws-sdk-go-v2/service/s3",
				},
			},
			{
				Packages: []string{"auth"}, May: append([]string{"auth/internal/*"}, database...),
				Libraries: []string{"golang.org/x/text/unicode/norm"},
				TestMay:   []string{"auth/idp", "auth/mail"},
			},
			{Packages: []string{"auth/internal/*"}, May: database},
			{
				Packages: []string{"auth/idp"}, May: []string{"auth"},
				Libraries: []string{
					"github.com/coreos/go-oidc/v3/oidc", "github.com/go-jose/go-jose/v4", "golang.org/x/oauth2",
				},
			},
			{
				Packages: []string{"auth/mail"}, May: []string{"auth"},
				Libraries: []string{"github.com/wneessen/go-mail"},
			},
			{Packages: []string{"auth/passkey"}, May: append([]string{"auth"}, database...)},
			{Packages: []string{"realtime"}, May: database, Libraries: []string{"github.com/r3labs/sse/v2"}},
			{Packages: []string{"realtime/durable"}, May: append([]string{"realtime"}, database...)},
			{Packages: []string{"tlsauto"}, May: internal, Libraries: []string{"golang.org/x/crypto/acme", "golang.org/x/net/idna"}},
			{
				Packages: []string{"backup"}, May: append([]string{"backup/internal/wire"}, internal...),
				TestMay: []string{"sqlite", "backup/*", "internal/backuptest"},
			},
			{Packages: []string{"backup/internal/wire"}},
			{
				Packages: []string{"backup/internal/replicator"}, May: []string{"backup/internal/wire"},
				Libraries: []string{"golang.org/x/sys/unix", "modernc.org/sqlite", "github.com/benbjohnson/litestream", "github.com/superfly/ltx"},
				TestMay:   []string{"sqlite", "backup/file"},
			},
			// The clients of replicas, which make a process a replicator.
			{
				Packages: []string{"backup/*"},
				May: []string{
					"backup", "backup/internal/replicator",
					"backup/internal/gslease", "backup/internal/abslease", "backup/internal/natslease",
				},
				TestMay: []string{"sqlite"},
				Libraries: []string{
					"github.com/benbjohnson/litestream", "github.com/superfly/ltx",
					"github.com/aws/aws-sdk-go-v2", "github.com/aws/smithy-go",
				},
			},
			{
				Packages: []string{"backup/internal/gslease"}, May: []string{"backup/internal/replicator"},
				Libraries: []string{"github.com/benbjohnson/litestream", "google.golang.org/api"},
			},
			{
				Packages: []string{"backup/internal/abslease"}, May: []string{"backup/internal/replicator"},
				Libraries: []string{"github.com/benbjohnson/litestream", "github.com/Azure/azure-sdk-for-go/sdk"},
			},
			{
				Packages: []string{"backup/internal/natslease"}, May: []string{"backup/internal/replicator"},
				Libraries: []string{"github.com/benbjohnson/litestream", "github.com/nats-io/nats.go"},
			},

			// Layer 0: the database, and what everybody stands on.
			{
				Packages: []string{"sqlite"}, May: internal,
				Libraries: []string{
					"github.com/mattn/go-sqlite3", "github.com/santhosh-tekuri/jsonschema/v6", "golang.org/x/sys/unix", "C",
				},
			},
			{
				Packages: []string{"internal/geo"}, May: internal,
				Libraries: []string{"github.com/peterstace/simplefeatures/geom"},
			},
			{
				Packages: []string{"internal/password"}, May: internal,
				Libraries: []string{
					"golang.org/x/crypto/argon2", "golang.org/x/crypto/bcrypt", "golang.org/x/text/unicode/norm",
				},
			},
			{Packages: []string{"internal/totp"}, May: internal, Libraries: []string{"rsc.io/qr"}},
			{Packages: internal, May: internal},

			// Helpers of tests and of the house.
			{Packages: []string{"internal/sqlitetest"}, May: database},
			{Packages: []string{"internal/apitest"}, May: all},
			{Packages: []string{"internal/oidctest"}, Libraries: []string{"github.com/go-jose/go-jose/v4"}},
			{Packages: []string{"internal/backuptest"}, Libraries: []string{"github.com/aws/aws-sdk-go-v2", "github.com/aws/smithy-go"}},
			{Packages: []string{"internal/archtest"}},
		},
		TestPackages: []string{"internal/sqlitetest", "internal/apitest", "internal/oidctest", "internal/backuptest"},
		TestLibraries: []string{
			"github.com/google/go-cmp",
			"github.com/johannesboyne/gofakes3",
			"github.com/mattn/go-sqlite3",
			"github.com/rogpeppe/go-internal",
			"github.com/pkg/sftp",
			"golang.org/x/crypto/bcrypt",
			"golang.org/x/crypto/ssh",
			"golang.org/x/net/webdav",
			"golang.org/x/tools/txtar",
		},
		Bans: []Ban{
			{
				From: []string{".", "sqlite", "records", "auth/...", "realtime/..."},
				To: []string{
					"backup", "tlsauto",
					"github.com/benbjohnson/litestream", "golang.org/x/crypto/acme",
				},
				Because: "an application that wants replication or certificates links them itself",
			},
			{
				From:    []string{".", "sqlite", "records", "auth/...", "realtime/...", "tlsauto/..."},
				To:      []string{"records/s3files", "github.com/aws"},
				Because: "an application that wants its files in S3 links that itself",
			},
			{
				From:    []string{".", "sqlite", "records", "auth/...", "realtime/...", "tlsauto/...", "backup"},
				To:      []string{"modernc.org/sqlite", "modernc.org/libc"},
				Because: "two SQLite libraries in one process ignore each other's file locks",
			},
		},
	}
}
