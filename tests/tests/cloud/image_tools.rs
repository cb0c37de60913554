//! ecr-push against the local cloud: every source really pushed and run, what drifts repaired, what others made left
//! theirs, what was made taken away again.
//!
//! One cloud serves the whole file, so this is one test; each subject has a repository of its own. It needs Linux and
//! root.

use super::aws_tools::region::Region;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;
use tests::{program, root};

/// Where the cloud's registry is.
const REGISTRY: &str = "123456789012.dkr.ecr.us-west-2.amazonaws.com";

/// The image that the cloud's stand-in for Docker Hub has.
const ENVOY: &str = "envoyproxy/envoy:v1.40.0";

/// Media type of an index.
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

#[test]
fn images_from_every_source() {
    let region = Region::up("test-image-tools");
    let one = region.done("oidc-assoc -n --cluster c1", "").document;
    let folder = region.cloud.state.join("images");
    let _none_yet = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    let index = archives(&folder);
    sources(&region, &one, &folder, &index);
    pipes(&region, &one, &folder, &index);
    copies(&region, &one);
    damage(&region, &one, &folder);
    builders(&region, &one, &folder);
    drift(&region, &one);
    of_others(&region, &one);
    shared(&region, &one);
    settings(&region, &one);
    immutable_tags(&region, &one);
    deletion(&region, &one, &folder, &index);
    processors(&region, &one, &folder);
}

/// The archives of colorapp in a folder; the digest of the index.
fn archives(folder: &Path) -> String {
    let script = root().join("tests/images/archives.py");
    let made = Command::new("python3").arg(script).arg(program("colorapp")).arg(folder).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    String::from_utf8(made.stdout).unwrap().trim().to_owned()
}

/// `ecr-push NAME` of one of the sample's programs.
fn push(name: &str, program_name: &str) -> String {
    format!("ecr-push {name} --binary {}", program(program_name).display())
}

fn image(document: &str) -> Value {
    let document: Value = serde_json::from_str(document).unwrap();
    document["images"].as_object().unwrap().values().next().unwrap().clone()
}

/// The tag that an image gets in any case.
fn own_tag(digest: &str) -> String {
    digest.replace(':', "-")[.."sha256-0123456789ab".len()].to_owned()
}

fn digest(document: &str) -> String {
    image(document)["digest"].as_str().unwrap().to_owned()
}

/// What crossmesh's programs asked of AWS and the registry meanwhile, in alphabetical order.
fn asked(region: &Region, act: impl FnOnce()) -> Vec<String> {
    let ((), calls) = region.calls(act);
    let ours = calls.iter().filter(|call| call["agent"].to_string().contains("crossmesh"));
    let mut actions: Vec<String> = ours.filter_map(|call| Some(call["action"].as_str()?.to_owned())).collect();
    actions.sort();
    actions
}

/// Each way into the registry, and from there into a pod that runs.
fn sources(region: &Region, one: &str, folder: &Path, index: &str) {
    let binary = format!("{} --repository shop/binary", push("binary", "colorapp"));
    let plan = region.done(&format!("{binary} --plan"), one);
    let made = region.done(&binary, one);
    let uri = format!("{REGISTRY}/shop/binary@{}", digest(&made.document));
    assert_eq!(image(&made.document)["uri"], uri);
    let push = format!("push {} to shop/binary", digest(&made.document));
    let tag = format!("tag {0} as shop/binary:{1}", digest(&made.document), own_tag(&digest(&made.document)));
    assert_eq!(plan.lines("would "), ["create repository shop/binary", &push, &tag]);
    let mut uris = vec![uri];

    // The same program elsewhere, and younger, is the same image. The steady state costs one call of each kind.
    let elsewhere = folder.join("elsewhere");
    std::fs::create_dir_all(&elsewhere).unwrap();
    std::fs::copy(program("colorapp"), elsewhere.join("colorapp")).unwrap();
    region.steady(
        &format!("ecr-push binary --repository shop/binary --binary {}", elsewhere.join("colorapp").display()),
        &made.document,
    );
    let steady = asked(region, || drop(region.done(&binary, &made.document)));
    let looks = ["ecr:BatchGetImage", "ecr:DescribeRepositories", "ecr:ListTagsForResource"];
    assert_eq!(steady, [&looks[..], &["eks:DescribeNodegroup", "eks:ListNodegroups"]].concat());
    // Without a source it has only to be there, and no node is asked for.
    region.steady("ecr-push binary", &made.document);
    assert_eq!(asked(region, || drop(region.done("ecr-push binary", &made.document))), looks);

    for kind in ["index", "docker"] {
        let mut digests = Vec::new();
        for shape in ["", ".tar", ".tar.gz"] {
            let archive = folder.join(format!("{kind}{shape}"));
            let pushed = region.done(&format!("ecr-push {kind} --archive {}", archive.display()), one);
            digests.push(digest(&pushed.document));
            let first = shape.is_empty();
            pushed.tells(&if first {
                format!("create repository {kind}")
            } else {
                format!("nothing to do for images.{kind}")
            });
        }
        assert!(digests.iter().all(|digest| *digest == digests[0]), "{digests:?}");
        uris.push(format!("{REGISTRY}/{kind}@{}", digests[0]));
        if kind == "index" {
            assert_eq!(digests[0], index);
        }
    }
    let listed = region.aws("ecr", "describe_images", json!({"repositoryName": "index"}));
    assert_eq!(listed["imageDetails"].as_array().unwrap().len(), 3, "the index and its two platforms: {listed}");

    for (number, uri) in uris.iter().enumerate() {
        let run = format!("kubectl --context c1 run pushed-{number} --restart=Never --image={uri}");
        sh(
            region,
            &format!("{run} && kubectl --context c1 wait --for=condition=Ready --timeout=60s pod/pushed-{number}"),
        );
    }
}

/// An archive that another program writes meanwhile.
fn pipes(region: &Region, one: &str, folder: &Path, index: &str) {
    let tool = program("ecr-push");
    let (tool, tar, packed) = (tool.display(), folder.join("index.tar"), folder.join("index.tar.gz"));
    let named = format!("{tool} index --archive <(cat {})", packed.display());
    let stdin = format!("cat {} | {tool} index -n --cluster c1 --archive -", tar.display());
    for command in [named, stdin] {
        let output = region.cloud.run(["bash", "-c", &command], one.as_bytes()).unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && stderr.contains("nothing to do"), "{command}: {stderr}");
        assert_eq!(digest(&String::from_utf8(output.stdout).unwrap()), index, "{command}");
    }
}

/// From the registry that answers for Docker Hub, and within ECR.
fn copies(region: &Region, one: &str) {
    let copy = format!("ecr-push envoy --repository shop/envoy --image {ENVOY}");
    let made = region.done(&copy, one);
    let uri = format!("{REGISTRY}/shop/envoy@{}", digest(&made.document));
    assert_eq!(image(&made.document)["uri"], uri);
    region.steady(&copy, &made.document);
    // It needs Docker Hub no more: neither by its document, nor by its digest from there.
    region.steady("ecr-push envoy", &made.document);
    let by_digest = format!("ecr-push envoy --image nowhere.example.com/envoy@{}", digest(&made.document));
    region.steady(&by_digest, &made.document);
    let run = format!("kubectl --context c1 run envoy --restart=Never --image={uri} --command -- envoy --version");
    let done = "kubectl --context c1 wait --for=jsonpath='{.status.phase}'=Succeeded --timeout=60s pod/envoy";
    sh(region, &format!("{run} && {done}"));

    // The account's own registry is read with the caller's own credentials.
    let again = region.done(&format!("ecr-push again --image {uri}"), one);
    assert_eq!(digest(&again.document), digest(&made.document));
    let missing = region.fails(1, "ecr-push none --image envoyproxy/envoy:v0", one);
    assert_eq!(missing["message"], "read docker.io/envoyproxy/envoy:v0");
    assert_eq!(missing["causes"][0], "docker.io has no such image");
    assert_eq!(missing["left"], Value::Null);
    region.deletes("ecr-push again", &again.document, &[], &["ecr:BatchDeleteImage", "ecr:DeleteRepository"]);
}

fn sh(region: &Region, script: &str) {
    let output = region.cloud.sh(script).unwrap();
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A layer that is not what its digest says is refused by the registry, and no manifest names it.
fn damage(region: &Region, one: &str, folder: &Path) {
    let (whole, damaged) = (folder.join("index"), folder.join("damaged"));
    sh(region, &format!("cp -r {} {}", whole.display(), damaged.display()));
    let blobs = std::fs::read_dir(damaged.join("blobs/sha256")).unwrap().map(|entry| entry.unwrap().path());
    let layer = blobs.max_by_key(|path| path.metadata().unwrap().len()).unwrap();
    let mut bytes = std::fs::read(&layer).unwrap();
    bytes[5000] ^= 1;
    std::fs::write(&layer, bytes).unwrap();
    let error = region.fails(1, &format!("ecr-push damaged --archive {}", damaged.display()), one);
    assert_eq!(error["causes"][0], "it is not what its digest says", "{error}");
    assert_eq!(error["left"], json!(["repository damaged"]));
    let listed = region.aws("ecr", "describe_images", json!({"repositoryName": "damaged"}));
    assert_eq!(listed["imageDetails"], json!([]));
}

/// Scripts stand in for docker, podman and buildah, none of which can run everywhere; what they hand over is real.
fn builders(region: &Region, one: &str, folder: &Path) {
    let tool = program("ecr-push");
    // All else that the scripts call: a builder of this machine's own must not be found.
    let others = folder.join("others");
    std::fs::create_dir_all(&others).unwrap();
    std::os::unix::fs::symlink("/bin/cp", others.join("cp")).unwrap();
    let run = |path: &Path| {
        let path = format!("PATH={}:{}", path.display(), others.display());
        let command = ["env", &path, tool.to_str().unwrap(), "built", "--context", folder.to_str().unwrap()];
        let output = region.cloud.run(command, one.as_bytes()).unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap(), stderr)
    };
    let script = |name: &str, build: &str| {
        let path = folder.join(format!("{name}-{}", build.len()));
        std::fs::create_dir_all(&path).unwrap();
        let text = format!(
            "#!/bin/sh\nfor last in \"$@\"; do :; done\ncase $1 in\nbuild) {build};;\n\
             save) while [ \"$1\" != --output ]; do shift; done; cp {0} \"$2\";;\npush) cp {0} \"${{last#oci-archive:}}\";;\nesac\n",
            folder.join("docker.tar").display()
        );
        let write = "printf %s \"$1\" > \"$0\" && chmod 755 \"$0\"";
        let file = path.join(name);
        assert!(Command::new("sh").args(["-c", write]).arg(&file).arg(text).status().unwrap().success());
        path
    };
    let names = ["docker", "podman", "buildah"];
    let works = "while [ \"$1\" != --iidfile ]; do shift; done; echo sha256:1 > \"$2\"";
    let fails = "echo \"no such base: $1\" >&2; exit 3";
    let mut digests = Vec::new();
    for name in names {
        let (exit, document, stderr) = run(&script(name, works));
        assert_eq!(exit, Some(0), "{name}: {stderr}");
        digests.push(digest(&document));
        let (exit, document, stderr) = run(&script(name, fails));
        assert_eq!((exit, document.as_str()), (Some(1), ""), "{name}: {stderr}");
        assert!(stderr.contains("no such base: build") && stderr.contains(&format!("{name} build")), "{stderr}");
    }
    assert!(digests.iter().all(|digest| *digest == digests[0]), "{digests:?}");
    let (exit, _, stderr) = run(Path::new("/nonexistent"));
    assert_eq!(exit, Some(1), "{stderr}");
    assert!(stderr.contains("none of docker, podman and buildah works here"), "{stderr}");
}

fn drift(region: &Region, one: &str) {
    let command = &format!("{} --tag v1", push("drift", "colorapp"));
    let made = region.done(command, one).document;
    region.steady(command, &made);
    let ours = digest(&made);
    let theirs = digest(&region.done(&push("drift", "feapp"), one).document);
    let (push, tag) = (&format!("push {ours} to drift"), &format!("tag {ours} as drift:v1"));
    let own = &format!("tag {ours} as drift:{}", own_tag(&ours));
    let delete =
        |id: Value| region.aws("ecr", "batch_delete_image", json!({"repositoryName": "drift", "imageIds": [id]}));
    let put = |digest: &str, tag: &str| {
        let id = json!({"repositoryName": "drift", "imageIds": [{"imageDigest": digest}]});
        let found = &region.aws("ecr", "batch_get_image", id)["images"][0];
        let manifest = json!({"repositoryName": "drift", "imageManifest": found["imageManifest"],
            "imageManifestMediaType": found["imageManifestMediaType"], "imageTag": tag});
        region.aws("ecr", "put_image", manifest);
    };

    // The image is gone: pushed again with its tag; without a source that is an error which says so.
    delete(json!({"imageDigest": ours}));
    let gone = region.fails(1, "ecr-push drift", &made);
    assert_eq!(gone["message"], format!("image {ours} is not in repository drift"));
    region.restores(command, &made, &[push, own, tag], &["ecr:PutImage", "ecr:PutImage", "ecr:PutImage"]);
    // The tag names another image: moved back, from the document alone, too.
    put(&theirs, "v1");
    region.restores(command, &made, &[tag], &["ecr:PutImage"]);
    put(&theirs, "v1");
    region.restores("ecr-push drift", &made, &[tag], &["ecr:PutImage"]);
    // Its own tag is gone, without which a lifecycle rule might take it once the other one has moved on.
    delete(json!({"imageTag": own_tag(&ours)}));
    region.restores("ecr-push drift", &made, &[own], &["ecr:PutImage"]);
    // The tag is gone; another one, which somebody gave the image, stays.
    put(&ours, "theirs");
    delete(json!({"imageTag": "v1"}));
    region.restores(command, &made, &[tag], &["ecr:PutImage"]);
    let tagged = json!({"repositoryName": "drift", "imageIds": [{"imageDigest": ours}]});
    let tagged = region.aws("ecr", "describe_images", tagged)["imageDetails"][0]["imageTags"].take();
    let mut tagged: Vec<String> = serde_json::from_value(tagged).unwrap();
    tagged.sort();
    assert_eq!(tagged, [&own_tag(&ours), "theirs", "v1"]);
    // The repository is gone.
    region.aws("ecr", "delete_repository", json!({"repositoryName": "drift", "force": true}));
    let plan = region.done(&format!("{command} --plan"), &made);
    assert_eq!(plan.lines("would "), ["create repository drift", push, own, tag]);
    let repaired = region.done(command, &made);
    assert_eq!(repaired.document, made);
    repaired.tells("create repository drift");
    assert!(repaired.lines("sent 3 of 3 blobs").len() == 1, "{:?}", repaired.lines(""));
    region.steady(command, &made);
}

fn of_others(region: &Region, one: &str) {
    let terraform = json!([{"Key": "managed-by", "Value": "terraform"}, {"Key": "team", "Value": "a"}]);
    let arn = region.aws("ecr", "create_repository", json!({"repositoryName": "theirs", "tags": terraform}));
    let arn = arn["repository"]["repositoryArn"].as_str().unwrap();
    let command = push("theirs", "colorapp");
    region.refuses(&command, one, "repository theirs exists: managed by terraform", "--adopt");
    let adopt = format!("{command} --adopt");
    let plan = region.done(&format!("{adopt} --plan"), one);
    let adopted = region.done(&adopt, one);
    let digest = digest(&adopted.document);
    let tag = format!("tag {digest} as theirs:{}", own_tag(&digest));
    assert_eq!(plan.lines("would "), [format!("adopt {arn}"), format!("push {digest} to theirs"), tag]);
    region.steady(&command, &adopted.document);
    let tags = region.aws("ecr", "list_tags_for_resource", json!({"resourceArn": arn}))["tags"].take();
    let tag = |key: &str| tags.as_array().unwrap().iter().find(|tag| tag["Key"] == key).map(|tag| &tag["Value"]);
    let cluster: Value = serde_json::from_str(one).unwrap();
    assert_eq!((tag("managed-by"), tag("team")), (Some(&json!("crossmesh")), Some(&json!("a"))), "{tags}");
    assert_eq!(tag("crossmesh:used-by/c1"), Some(&cluster["cluster"]["arn"]), "{tags}");
    assert_eq!(tags.as_array().unwrap().len(), 3, "{tags}");

    // What is there already may be used; a tag would be a change.
    region.aws("ecr", "untag_resource", json!({"resourceArn": arn, "tagKeys": ["managed-by"]}));
    region
        .steady(&command, &adopted.document)
        .tells("repository theirs is used, not made by crossmesh: --adopt takes it over");
    let message = "repository theirs exists: not made by crossmesh";
    region.refuses(&format!("{command} --tag v1"), &adopted.document, message, "--adopt");
    region.deletes("ecr-push theirs", &adopted.document, &["repository theirs: not made by crossmesh"], &[]);
}

/// The owner's repository takes an image, and stays the owner's.
fn shared(region: &Region, one: &str) {
    let command = format!("{} --tag v1 --use", push("theirs-too", "colorapp"));
    let missing = region.fails(1, &command, one);
    assert_eq!(missing["message"], "repository theirs-too does not exist");
    let terraform = json!([{"Key": "managed-by", "Value": "terraform"}]);
    let arn = region.aws("ecr", "create_repository", json!({"repositoryName": "theirs-too", "tags": terraform}));
    let arn = arn["repository"]["repositoryArn"].as_str().unwrap().to_owned();
    let tags = || region.aws("ecr", "list_tags_for_resource", json!({"resourceArn": arn}))["tags"].take();
    let mut made = String::new();
    let calls = asked(region, || made = region.done(&command, one).document);
    assert!(
        !calls.iter().any(|call| ["ecr:CreateRepository", "ecr:ListTagsForResource"].contains(&&**call)),
        "{calls:?}"
    );
    assert_eq!(tags(), terraform);
    region.steady(&command, &made);
    let line = "repository theirs-too is used, managed by terraform: --adopt takes it over";
    region.steady("ecr-push theirs-too", &made).tells(line);
    region.deletes("ecr-push theirs-too", &made, &["repository theirs-too: managed by terraform"], &[]);
    let left = "repository theirs-too: it is only used";
    region.deletes("ecr-push theirs-too --use", &made, &[left], &["ecr:BatchDeleteImage"]);
    assert_eq!(tags(), terraform);
    let listed = region.aws("ecr", "describe_images", json!({"repositoryName": "theirs-too"}));
    assert_eq!(listed["imageDetails"], json!([]));
}

/// What cannot be decided later is decided when the repository is made.
fn settings(region: &Region, one: &str) {
    let command = format!("{} --kms-key alias/aws/ecr --scan-on-push", push("sealed", "colorapp"));
    let made = region.done(&command, one).document;
    assert_eq!(image(&made)["settings"], json!({"kmsKey": "alias/aws/ecr", "scanOnPush": true}));
    let found = region.aws("ecr", "describe_repositories", json!({"repositoryNames": ["sealed"]}));
    let found = &found["repositories"][0];
    assert_eq!(found["encryptionConfiguration"], json!({"encryptionType": "KMS", "kmsKey": "alias/aws/ecr"}));
    assert_eq!(found["imageScanningConfiguration"], json!({"scanOnPush": true}));
    region.steady("ecr-push sealed", &made);
    let message = "repository sealed exists: its KMS key is alias/aws/ecr, not ab-1";
    region.refuses(&format!("{} --kms-key ab-1", push("sealed", "colorapp")), one, message, "leave --kms-key out");
}

fn immutable_tags(region: &Region, one: &str) {
    let command = format!("{} --tag v1", push("fixed", "colorapp"));
    let made = region.done(&command, one).document;
    let fixed = json!({"repositoryName": "fixed", "imageTagMutability": "IMMUTABLE"});
    region.aws("ecr", "put_image_tag_mutability", fixed);
    region.steady(&command, &made);
    let other = push("fixed", "feapp");
    let theirs = digest(&region.done(&format!("{other} --tag v2"), one).document);
    let message = format!("tag fixed:v1 is immutable and names {}, not {theirs}", digest(&made));
    region.refuses(&format!("{other} --tag v1"), one, &message, "give another --tag");
}

fn deletion(region: &Region, one: &str, folder: &Path, index: &str) {
    region.deletes("ecr-push nothing", one, &[], &[]);
    let (image_gone, repository) = ("ecr:BatchDeleteImage", "ecr:DeleteRepository");

    let alone = region.done(&push("alone", "colorapp"), one).document;
    let gone = region.deletes("ecr-push alone", &alone, &[], &[image_gone, repository]);
    assert_eq!(gone.json()["images"], Value::Null);

    // Images of others keep the repository, unless --force.
    let shared = region.done(&push("shared", "colorapp"), one).document;
    region.done(&push("shared", "feapp"), one);
    let left = "repository shared: other images in it: 1; --force deletes them, too";
    region.deletes("ecr-push shared", &shared, &[left], &[image_gone]);
    region.deletes("ecr-push shared --force", &shared, &[], &[repository]);

    // A tag of others keeps the image; ours goes.
    let tagged = region.done(&format!("{} --tag v1", push("tagged", "colorapp")), one).document;
    let manifest = json!({"repositoryName": "tagged", "imageIds": [{"imageTag": "v1"}]});
    let manifest = region.aws("ecr", "batch_get_image", manifest)["images"][0]["imageManifest"].take();
    let theirs = json!({"repositoryName": "tagged", "imageManifest": manifest, "imageTag": "theirs",
        "imageManifestMediaType": "application/vnd.oci.image.manifest.v1+json"});
    region.aws("ecr", "put_image", theirs);
    let left = format!("image {}: also tagged theirs", digest(&tagged));
    region.deletes("ecr-push tagged", &tagged, &[&left], &[image_gone, image_gone]);
    let listed = region.aws("ecr", "describe_images", json!({"repositoryName": "tagged"}));
    assert_eq!(listed["imageDetails"][0]["imageTags"], json!(["theirs"]));

    // An index goes with its platforms, in this order.
    let push = format!("ecr-push many --archive {}", folder.join("index.tar").display());
    let many = region.done(&push, one).document;
    region.steady("ecr-push many", &many);
    let named = image(&many)["platforms"].as_array().unwrap().clone();
    let names: Vec<&str> = named.iter().filter_map(Value::as_str).collect();
    let deleted = region.deletes("ecr-push many", &many, &[], &[image_gone, image_gone, repository]);
    let platforms = format!("platforms {} from many", names.join(", "));
    assert_eq!(deleted.lines("delete "), [&format!("image {index} from many"), &platforms, "repository many"]);

    // A run that was killed after the index went; the next one knows what it named, from the document or the source.
    for (command, document) in [("ecr-push many", many.as_str()), (&push, one)] {
        region.done(&push, one);
        let id = json!({"repositoryName": "many", "imageIds": [{"imageDigest": index}]});
        region.aws("ecr", "batch_delete_image", id);
        region.deletes(command, document, &[], &[image_gone, repository]);
    }

    // What another index names stays, and so does the repository.
    region.done(&push, one);
    let other = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [{"digest": named[0], "size": 1,
        "mediaType": "application/vnd.oci.image.manifest.v1+json"}]});
    let put = json!({"repositoryName": "many", "imageManifest": other.to_string(), "imageManifestMediaType": INDEX,
        "imageTag": "theirs"});
    region.aws("ecr", "put_image", put);
    let left = "repository many: other images in it: 2; --force deletes them, too";
    region.deletes("ecr-push many", &many, &[left], &[image_gone, image_gone]);
    let listed = region.aws("ecr", "describe_images", json!({"repositoryName": "many"}))["imageDetails"].take();
    assert!(listed.as_array().unwrap().iter().any(|image| image["imageDigest"] == named[0]), "{listed}");
}

/// What no node can run is refused before anything is made or sent.
fn processors(region: &Region, one: &str, folder: &Path) {
    let mut elf = std::fs::read(program("colorapp")).unwrap();
    elf[18..20].copy_from_slice(&183_u16.to_le_bytes());
    let arm: PathBuf = folder.join("arm");
    std::fs::write(&arm, elf).unwrap();
    let push = format!("ecr-push arm --binary {}", arm.display());
    let calls = asked(region, || {
        let error = region.fails(1, &push, one);
        assert_eq!(error["message"], "no node can run the image: it is for linux/arm64, the nodes are linux/amd64");
        assert_eq!(error["hint"], "build it for linux/amd64");
    });
    let looks = ["ecr:BatchGetImage", "ecr:BatchGetImage", "ecr:DescribeRepositories"];
    assert_eq!(calls, [&looks[..], &["eks:DescribeNodegroup", "eks:ListNodegroups"]].concat());
    // Beside a program for the nodes it is one image, under one name.
    let both = format!("ecr-push both --binary {} --binary {}", program("colorapp").display(), arm.display());
    let made = region.done(&both, one).document;
    region.steady(&both, &made);
    assert_eq!(image(&made)["platforms"].as_array().unwrap().len(), 2);
    let uri = image(&made)["uri"].as_str().unwrap().to_owned();
    let run = format!("kubectl --context c1 run both --restart=Never --image={uri}");
    sh(region, &format!("{run} && kubectl --context c1 wait --for=condition=Ready --timeout=60s pod/both"));
    // Nobody says where it is to run.
    let pushed = region.done(&format!("{push} -n --region us-west-2"), "");
    assert_eq!(image(&pushed.document)["uri"], format!("{REGISTRY}/arm@{}", digest(&pushed.document)));
}
