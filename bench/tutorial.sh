#!/usr/bin/env bash
# What crossmesh is compared with: the steps of the published tutorial, one after the other, with the tools its reader
# uses. Where the tutorial says to note a value or to look again, this waits for the fact and no longer.
#
# Runs inside the local cloud. WORK is a folder with colorapp/ and feapp/, a Dockerfile and the finished program in each:
# nothing is compiled here, and buildah, which needs no daemon, stands in for docker. The controller's images have been
# pushed as k8multi/appmesh-controller:bench and k8multi/capture:bench, for the tutorial's reader finds them in a public
# registry.
set -euo pipefail

region=us-west-2
namespace=svc2.svc.local
project=k8multi

for cluster in c1 c2; do
    kubectl config use-context $cluster
    kubectl apply --filename charts/appmesh-controller/crds/crds.yaml
    kubectl create namespace appmesh-system
    account=$(aws sts get-caller-identity --query Account --output text)
    registry=$account.dkr.ecr.$region.amazonaws.com
    issuer=$(aws eks describe-cluster --name $cluster --query cluster.identity.oidc.issuer --output text)
    provider=${issuer#https://}
    aws iam create-open-id-connect-provider --url "$issuer" --client-id-list sts.amazonaws.com
    cat > "$WORK/trust.json" <<TRUST
{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "sts:AssumeRoleWithWebIdentity",
  "Principal": {"Federated": "arn:aws:iam::$account:oidc-provider/$provider"},
  "Condition": {"StringEquals": {"$provider:sub": "system:serviceaccount:appmesh-system:appmesh-controller"}}}]}
TRUST
    role=$cluster-role
    aws iam create-role --role-name $role --assume-role-policy-document "file://$WORK/trust.json" > /dev/null
    aws iam attach-role-policy --role-name $role --policy-arn arn:aws:iam::aws:policy/AWSCloudMapFullAccess
    aws iam attach-role-policy --role-name $role --policy-arn arn:aws:iam::aws:policy/AWSAppMeshFullAccess
    kubectl create serviceaccount appmesh-controller --namespace appmesh-system
    kubectl annotate serviceaccount appmesh-controller --namespace appmesh-system \
        eks.amazonaws.com/role-arn=arn:aws:iam::$account:role/$role
    helm upgrade --install appmesh-controller charts/appmesh-controller --namespace appmesh-system \
        --set region=$region --set serviceAccount.create=false --set serviceAccount.name=appmesh-controller \
        --set image.repository="$registry/$project/appmesh-controller" --set image.tag=bench \
        --set init.image.repository="$registry/$project/capture" --set init.image.tag=bench > /dev/null
done

vpc=$(aws eks describe-cluster --name c2 --query cluster.resourcesVpcConfig.vpcId --output text)
operation=$(aws servicediscovery create-private-dns-namespace --name $namespace --vpc "$vpc" --query OperationId --output text)

build() { buildah --root "$WORK/images" --runroot "$WORK/run" --storage-driver vfs "$@"; }
aws ecr get-login-password | build login --authfile "$WORK/auth.json" --username AWS --password-stdin "$registry"
for app in colorapp feapp; do
    aws ecr create-repository --repository-name $project/$app > /dev/null
    build build --quiet --tag "$registry/$project/$app" "$WORK/$app"
    build push --quiet --authfile "$WORK/auth.json" "$registry/$project/$app"
done

until [ "$(aws servicediscovery get-operation --operation-id "$operation" --query Operation.Status --output text)" = SUCCESS ]; do
    sleep 1
done

kubectl config use-context c2
kubectl rollout status deployment appmesh-controller --namespace appmesh-system
sed "s|{{ images.colorapp.uri }}|$registry/$project/colorapp:latest|" manifests/colorapp.yaml | kubectl apply --filename -
kubectl wait virtualservices.appmesh.k8s.aws/colorapp --namespace $project --for=condition=VirtualServiceActive
arn=$(kubectl get virtualservices.appmesh.k8s.aws colorapp --namespace $project --output 'jsonpath={.status.virtualServiceARN}')
kubectl rollout status deployment colorapp-red colorapp-blue --namespace $project

kubectl config use-context c1
kubectl rollout status deployment appmesh-controller --namespace appmesh-system
sed -e "s|{{ images.feapp.uri }}|$registry/$project/feapp:latest|" \
    -e "s|{{ peer.apps.colorapp.virtualServices.colorapp }}|$arn|" manifests/feapp.yaml | kubectl apply --filename -
kubectl rollout status deployment front --namespace $project

group() { aws eks describe-cluster --name "$1" --query cluster.resourcesVpcConfig.clusterSecurityGroupId --output text; }
aws ec2 authorize-security-group-ingress --group-id "$(group c2)" --protocol tcp --port 8080 --source-group "$(group c1)" > /dev/null

kubectl wait service/front --namespace $project --for=jsonpath='{.status.loadBalancer.ingress[0].hostname}'
host=$(kubectl get service front --namespace $project --output 'jsonpath={.status.loadBalancer.ingress[0].hostname}')
until curl --silent --fail --max-time 5 "http://$host:8080/color" > /dev/null; do sleep 1; done
for _ in {1..20}; do curl --silent --fail "http://$host:8080/color"; echo; done | sort | uniq -c
