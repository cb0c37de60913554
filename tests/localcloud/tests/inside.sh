# What a command inside a local cloud can count on. Ends with 7, to see that the code gets out.
state=$1
python=$(sed -n 's/.*"python": "\(.*\)".*/\1/p' "$state/cloud.json")/python
fail() { echo "inside.sh: $*" >&2; exit 1; }

# the operator's environment
[ -z "${AWS_PROFILE:-}" ] || fail "another profile is seen"
[ "$AWS_REGION" = us-west-2 ] || fail "region $AWS_REGION"
[ "$PWD" = "$OLDPWD" ] 2>/dev/null || true
command -v kubectl | grep -q crossmesh || fail "kubectl is not of the parts"

# both clusters, by their contexts
for cluster in c1 c2; do
  kubectl --context "$cluster" wait --for=condition=Ready node --all --timeout=10s > /dev/null
  kubectl --context "$cluster" run sleeper --image=registry.k8s.io/pause:3.10 > /dev/null
done

# AWS by its public names, with the operator's keys and no others
"$python" - << 'PY'
import boto3, botocore.exceptions
assert boto3.client("sts").get_caller_identity()["Arn"].endswith(":user/operator")
assert sorted(boto3.client("eks").list_clusters()["clusters"]) == ["c1", "c2"]
try:
    boto3.client("iam", aws_access_key_id="AKIAIOSFODNN7EXAMPLE", aws_secret_access_key="x").list_roles()
    raise SystemExit("anybody may list roles")
except botocore.exceptions.ClientError as error:
    assert error.response["Error"]["Code"] == "InvalidClientTokenId", error
PY

# security groups: closed, opened by a rule from group to group, closed again
node() { pgrep -f "localcloud stage machine --name $1" | head -n 1; }
reach() { timeout 3 nsenter -t "$(node "$1")" -n bash -c "exec 3<> /dev/tcp/$2/$3" 2> /dev/null; }
reach c1 10.0.1.1 6443 || fail "c1 does not reach itself"
! reach c1 10.0.2.1 6443 || fail "c1 reaches c2 without a rule"
rule() {
  "$python" - "$1" << 'PY'
import boto3, sys
group = lambda name: boto3.client("eks").describe_cluster(name=name)["cluster"]["resourcesVpcConfig"]["clusterSecurityGroupId"]
permission = {"IpProtocol": "tcp", "FromPort": 6443, "ToPort": 6443, "UserIdGroupPairs": [{"GroupId": group("c1")}]}
getattr(boto3.client("ec2"), f"{sys.argv[1]}_security_group_ingress")(GroupId=group("c2"), IpPermissions=[permission])
PY
}
until_so() { for _ in $(seq 50); do "$@" && return; read -rt 0.1 <> <(:) || true; done; fail "never so: $*"; }
closed() { ! reach c1 10.0.2.1 6443; }
rule authorize
until_so reach c1 10.0.2.1 6443
! reach c2 10.0.1.1 6443 || fail "the rule works both ways"
rule revoke
until_so closed

# every call is in the log, with its action and who made it
grep -q '"action":"ec2:AuthorizeSecurityGroupIngress"' "$state/log/aws-api.log" || fail "the log misses a call"
grep -q '"caller":"arn:aws:iam::123456789012:user/operator"' "$state/log/aws-api.log" || fail "the log misses the caller"

# pods run; instance metadata is unreachable from nodes, at once
for cluster in c1 c2; do
  kubectl --context "$cluster" wait --for=condition=Ready pod/sleeper --timeout=60s > /dev/null
done
SECONDS=0
! reach c1 169.254.169.254 80 || fail "instance metadata answers"
[ "$SECONDS" -le 1 ] || fail "instance metadata hangs"

# the internet's registries, which ask nobody who they are
"$python" -c 'import urllib.request; urllib.request.urlopen("https://registry-1.docker.io/v2/")' || fail "no Docker Hub"

# a load balancer's name appears first and resolves later
kubectl --context c1 create service loadbalancer front --tcp=80:80 > /dev/null
kubectl --context c1 wait --for=jsonpath='{.status.loadBalancer.ingress[0].hostname}' service/front --timeout=10s > /dev/null
name=$(kubectl --context c1 get service front -o 'jsonpath={.status.loadBalancer.ingress[0].hostname}')
resolves() { getent hosts "$name" > /dev/null; }
! resolves || fail "$name resolves at once"
until_so resolves
kubectl --context c1 delete service front > /dev/null
until_so eval '! resolves'

# a pod of a service account with a role gets its identity
kubectl --context c1 create serviceaccount worker > /dev/null
kubectl --context c1 annotate serviceaccount worker eks.amazonaws.com/role-arn=arn:aws:iam::123456789012:role/x > /dev/null
spec='{"spec": {"serviceAccountName": "worker"}}'
kubectl --context c1 run worker --image=registry.k8s.io/pause:3.10 --overrides="$spec" > /dev/null
kubectl --context c1 get pod worker -o 'jsonpath={.spec.containers[0].env[*].name}' | grep -q AWS_WEB_IDENTITY_TOKEN_FILE || fail "no identity"

exit 7
