// Package s3 links replicas in S3 and in what speaks its protocol into a program: import it for
// that alone.
//
//	s3://bucket/prefix?region=eu-central-1
//	s3://bucket/prefix?endpoint=https://minio.example.com
//
// The parameters are those of Litestream, region, endpoint and forcePathStyle above all. Credentials
// are found as by any program that uses AWS: in the variables AWS_ACCESS_KEY_ID,
// AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN, which Config.Credentials may return, in
// ~/.aws, or by the machine's role. They are not a part of the URL.
package s3

import (
	"fmt"
	"os"

	"github.com/benbjohnson/litestream"
	"github.com/benbjohnson/litestream/s3"

	"github.com/bedplate/bedplate/backup"
	"github.com/bedplate/bedplate/backup/internal/replicator"
)

const scheme = "s3"

func init() {
	backup.Register(scheme)
	replicator.Run(scheme, replicator.Scheme{Client: client, Leaser: newLeaser})
}

func client(url string) (litestream.ReplicaClient, error) {
	c, err := litestream.NewReplicaClientFromURL(url)
	if err != nil {
		return nil, err
	}
	client, ok := c.(*s3.ReplicaClient)
	if !ok {
		return nil, fmt.Errorf("no client for %s", scheme)
	}
	if os.Getenv("AWS_ACCESS_KEY_ID") != "" {
		// Left to itself, it forgets AWS_SESSION_TOKEN.
		client.AccessKeyID, client.SecretAccessKey = "", ""
	}
	if client.Path == "." { // it would be a part of the keys
		client.Path = ""
	}
	return client, nil
}
