# Joins two EKS clusters into one service mesh: `make all CLUSTER1=… CLUSTER2=…`, or `make demo` without any AWS account.
# Your own application takes the sample's place: `make all CLUSTER1=… CLUSTER2=… APP1=web.yaml APP2=api.yaml`.
#
# Every step is one tool that reads JSON and writes JSON; its output is the target. So -j runs both clusters side by
# side, a run that failed resumes where it stopped, -B asserts everything again, and -n shows the commands.

MAKEFLAGS += --warn-undefined-variables --no-builtin-rules
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
# Without this, make deletes the JSON files between the first and the last.
.SECONDARY:

# --- what a user sets
V ?= # anything: also show the commands
CLUSTER1 ?= # the cluster of the front end, where users arrive
CLUSTER2 ?= # the cluster of the back end; with APP1 or MESH_ONLY none is needed
REGION ?= # default: AWS_REGION or the profile
PROFILE1 ?= # AWS profile for cluster 1; default: AWS_PROFILE
PROFILE2 ?= # AWS profile for cluster 2, of the same account; default: AWS_PROFILE
APP1 ?= # your manifests or folders of them for cluster 1, in place of the sample's; templates if named *.j2
APP2 ?= # those for cluster 2
TEMPLATE ?= # anything: APP1 and APP2 are templates, whatever they are named
IMAGES1 ?= # programs in STATIC that are pushed for APP1, which names them {{ images.NAME.uri }}
IMAGES2 ?= # those for APP2
MESH_ONLY ?= # anything: join the clusters, but apply no application
NAMESPACE ?= svc2.svc.local# the Cloud Map namespace, which APP1 and APP2 may name {{ namespace.name }}
PORTS ?= 8080# ports of cluster 2 that cluster 1 may reach
URL ?= # what the probe asks; default: the sample's front end
EXPECT ?= # answers that the probe expects, with weights: v1=9,v2=1; default: those of the sample
COUNT ?= 200# requests of the probe
VIA_CLUSTER ?= # anything: the probe asks through cluster 1's API server, by your kubeconfig, not its load balancer
REPORT ?= # a file, such as probe.html: the probe writes a page with charts into it, also if it fails
PROJECT ?= k8multi# prefix of the ECR repositories
PROPERTY ?= spoiled_# what `make fuzz` tries: every test whose name has this
SECONDS ?= 50# how long it tries each
INPUT ?= # or a file that it left: once more, with that alone
CHART ?= charts/appmesh-controller# or https://aws.github.io/eks-charts, for whoever still has the App Mesh API
VALUES ?= # values of the chart, KEY=VALUE; lists and maps as JSON without spaces
ADOPT ?= # anything: take over a controller that others installed, such as Amazon's
SCHEME ?= internet-facing# or internal: the front end's load balancer
NAMESPACE_TYPE ?= private-dns# or http, for clusters in two VPCs
IDENTITY ?= irsa# or pod-identity, for accounts that may not make an OIDC provider: how pods get their role
BUILD ?= build# where the documents are
PREFIX ?= /usr/local# where `make install` puts the tools
DESTDIR ?= # a folder that stands for /, for whoever makes a package
TARGETS ?= # what `make dist` packs for; default: those of Linux that rustup has installed
# A Mac builds the tools; what runs in pods is built for Linux, elsewhere.
MAC := $(filter Darwin,$(shell uname -s))
HOST = $(shell rustc -vV | sed -n 's/^host: //p')
# A release has its programs in bin.
ifeq ($(origin BIN),undefined)
BIN := $(or $(wildcard bin),target/$(HOST)/release)
endif
STATIC ?= $(BIN)# the images' programs, for Linux; a Mac has them built elsewhere

# Amazon's chart brings its own images and needs the App Mesh API; ours is built here and needs Cloud Map only.
ifeq ($(CHART),charts/appmesh-controller)
MESH_IMAGES := appmesh-controller capture
MESH_FLAGS := --image image=appmesh-controller --image init.image=capture
POLICIES ?= # managed policies in place of policies/controller.json, which irsa-role knows
else
MESH_IMAGES :=
MESH_FLAGS := --chart-name appmesh-controller
POLICIES ?= AWSCloudMapFullAccess AWSAppMeshFullAccess
endif

# What every other step begins with: the first document of a cluster, which has its facts.
ifeq ($(strip $(IDENTITY)),pod-identity)
FACTS := role
else
FACTS := oidc
endif

ifeq ($(strip $(V)),)
.SILENT:
endif
comma := ,

TOOLS := appmesh-install cloudmap-ns color-probe ecr-push irsa-role manifest-apply mesh-check mesh-map oidc-assoc plan-total pod-identity sg-open

# The sample is two applications as any others are, unless others are named or none is wanted.
SAMPLE := $(if $(strip $(APP1)$(APP2)$(MESH_ONLY)),,yes)
ifneq ($(SAMPLE),)
app1 := manifests/feapp.yaml
app2 := manifests/colorapp.yaml
images1 := feapp
images2 := colorapp
expect := $(or $(strip $(EXPECT)),red=1$(comma)blue=1)
template := --template
set1 := --set LOAD_BALANCER_SCHEME=$(SCHEME) --set LOAD_BALANCER_IS_INTERNAL=$(if $(filter internal,$(SCHEME)),true,false)
else
app1 := $(strip $(APP1))
app2 := $(strip $(APP2))
images1 := $(strip $(IMAGES1))
images2 := $(strip $(IMAGES2))
expect := $(strip $(EXPECT))
template := $(if $(strip $(TEMPLATE)),--template)
set1 :=
endif
# An application has the name of its first file, up to the first dot.
name = $(firstword $(subst ., ,$(notdir $(patsubst %/,%,$(firstword $(1))))))
name1 := $(call name,$(app1))
name2 := $(call name,$(app2))
inputs = $(foreach file,$(1),$(file) $(wildcard $(file:%/=%)/*))
manifests = $(1:%=--file %) $(template)
IMAGES := $(sort appmesh-controller capture $(images1) $(images2))
probed := $(strip $(SAMPLE)$(URL)$(EXPECT))
# What steps are called: no application may have such a name.
STEPS := check diagnosis gone image-% ingress ingress-nodes mesh namespace namespace-id oidc probe role

ONE := $(BUILD)/$(CLUSTER1)
TWO := $(BUILD)/$(CLUSTER2)
two := $(strip $(CLUSTER2))
space := $(subst ,, )
PAIR := $(sort $(CLUSTER1) $(CLUSTER2))
region := $(if $(strip $(REGION)),--region $(strip $(REGION)))
# In one cluster the mesh is both applications', and goes with the second.
same := $(filter $(CLUSTER1),$(CLUSTER2))
# As whom the step that makes a file asks AWS and Kubernetes.
as1 := $(addprefix --profile ,$(PROFILE1))
as2 := $(if $(same),$(as1),$(addprefix --profile ,$(PROFILE2)))
as-both := $(as1) $(if $(two),$(as2:--profile=--and-profile))
$(BUILD)/%: as = $(as1)
ifneq ($(two),)
$(TWO)/%: as = $(as2)
endif
# When the recipe that names it began, for its lines are expanded together; and how to name these clusters and
# applications again.
STARTED = $(shell date +%s)
NAMED := CLUSTER1 CLUSTER2 REGION PROFILE1 PROFILE2 APP1 APP2 TEMPLATE IMAGES1 IMAGES2 MESH_ONLY NAMESPACE NAMESPACE_TYPE PORTS PROJECT CHART VALUES POLICIES SCHEME IDENTITY
given = $(filter-out file default,$(origin $(1)))
again = $(strip $(foreach variable,$(NAMED),$(if $(call given,$(variable)),$(call assigned,$(variable),$(strip $($(variable)))))))
assigned = $(if $(2),$(1)=$(call quoted,$(2)))
quoted = $(if $(strip $(word 2,$(1)) $(foreach one,$(SPECIAL),$(findstring $(one),$(1)))),'$(1)',$(1))
# What a shell would not leave as it is; and a text as it is written between double quotes.
SPECIAL := \ " { [ * ? ; & | < > ( )
escaped = $(subst ",\",$(subst \,\\,$(1)))
# `make plan` runs the same rules with this flag, and into a folder of its own; with --quiet, only errors are reported.
PLANNING :=
plan := $(if $(PLANNING),--plan $(PLANNING:yes=))
# What only looks may do so side by side, without being asked.
look = $(MAKE) --no-print-directory $(if $(findstring --jobserver,$(MAKEFLAGS)),,-j8)
# Keeps the last good answer when a step fails.
to = > $@.tmp && mv $@.tmp $@
# `make all` asks what each cluster is whatever is written down, for it may have been deleted and made again since: then all
# that follows is done again.
LOOK :=
to-if-new = > $@.tmp && if cmp -s $@.tmp $@; then rm $@.tmp; else mv $@.tmp $@; fi

.PHONY: all
all: named ## Join CLUSTER1 and CLUSTER2, and see the application work
	$(MAKE) --no-print-directory check
	$(MAKE) --no-print-directory $(if $(probed),probe,joined) LOOK=anew
	printf '%s\n' "" "$(strip $(CLUSTER1))$(if $(two), and $(two) are, is) one mesh, after $$(( $$(date +%s) - $(STARTED) )) s" \
		"  see it        kubectl get meshes,virtualnodes,virtualrouters,virtualservices -A$(if $(two),$(comma) in both)" \
		"  all of it     make plan-destroy $(call escaped,$(again))" \
		"  what drifted  make plan $(call escaped,$(again))" \
		"  undo it       make destroy $(call escaped,$(again))"

.PHONY: check
check: named $(IMAGES:%=$(STATIC)/%) | $(BIN)/mesh-check ## Tell all that keeps CLUSTER1 and CLUSTER2 apart, at once; change nothing
	mkdir -p $(ONE)
	$(BIN)/mesh-check -n --only XM01 --cluster $(CLUSTER1) $(two:%=--and-cluster %) $(region) $(as-both) --namespace-type $(NAMESPACE_TYPE) --identity $(IDENTITY) --helm $(IMAGES:%=--program $(STATIC)/%) > $(ONE)/check.json

.PHONY: diagnose
diagnose: named | $(BIN)/mesh-check ## Tell all that is wrong with the mesh as it stands; change nothing
	mkdir -p $(ONE)
	$(BIN)/mesh-check -n --cluster $(CLUSTER1) $(two:%=--and-cluster %) $(region) $(as-both) --namespace-type $(NAMESPACE_TYPE) --identity $(IDENTITY) > $(ONE)/diagnosis.json

.PHONY: map
map: named | $(BIN)/mesh-map ## Draw the mesh of CLUSTER1 and CLUSTER2 as Mermaid, what is broken in red; change nothing
	$(BIN)/mesh-map -n --cluster $(CLUSTER1) $(two:%=--and-cluster %) $(region) $(as-both)

# What is wrong with the variables themselves.
wrong = $(or \
	$(if $(strip $(CLUSTER1)),,name the clusters: make all CLUSTER1=… CLUSTER2=…), \
	$(if $(and $(MAC),$(filter $(BIN),$(STATIC))),name the folder of the images' programs$(comma) built for Linux: STATIC=…), \
	$(if $(SAMPLE)$(app2),$(if $(two),,name both clusters: make all CLUSTER1=… CLUSTER2=…)), \
	$(if $(strip $(MESH_ONLY)),$(if $(app1)$(app2),MESH_ONLY applies no application: leave out APP1 and APP2)), \
	$(if $(SAMPLE),$(if $(filter-out svc2.svc.local,$(NAMESPACE)),the sample is in svc2.svc.local: NAMESPACE is for APP1 and APP2)), \
	$(foreach file,$(app1) $(app2),$(if $(wildcard $(file)),,there is no $(file))), \
	$(foreach name,$(filter $(STEPS),$(name1) $(name2)),a step is called $(name): give the manifest another name))

.PHONY: named
named:
	$(if $(strip $(wrong)),$(error $(strip $(wrong))))

# --- each cluster: identity provider, role, images, controller
$(BUILD)/%/oidc.json: $(LOOK) | $(BIN)/oidc-assoc
	mkdir -p $(@D)
	$(BIN)/oidc-assoc -n --cluster $* $(region) $(as) $(plan) $(to-if-new)

ifeq ($(FACTS),oidc)
$(BUILD)/%/role.json: $(BUILD)/%/oidc.json $(BUILD)/%/settings | $(BIN)/irsa-role
	$(BIN)/irsa-role $(POLICIES:%=--policy %) $(as) $(plan) < $< $(to)
else
$(BUILD)/%/role.json: $(LOOK) $(BUILD)/%/settings | $(BIN)/pod-identity
	mkdir -p $(@D)
	$(BIN)/pod-identity -n --cluster $* $(region) $(POLICIES:%=--policy %) $(as) $(plan) $(to-if-new)
endif

define push
$(BUILD)/%/image-$(1).json: $(BUILD)/%/$(FACTS).json $(BUILD)/%/settings $(STATIC)/$(1) | $(BIN)/ecr-push
	$(BIN)/ecr-push $(1) --repository $(PROJECT)/$(1) --binary $(STATIC)/$(1) --plain $$(as) $(plan) < $$< $$(to)
endef
$(foreach image,$(IMAGES),$(eval $(call push,$(image))))
# The clusters' images are in one registry: what is pushed for one need not be sent for the other. It is there already if it
# was pushed before.
ifneq ($(filter-out $(CLUSTER1),$(CLUSTER2)),)
$(foreach image,$(MESH_IMAGES),$(eval $(ONE)/image-$(image).json: | $(filter-out $(wildcard $(TWO)/*),$(TWO)/image-$(image).json)))
endif

# A value that begins as a list or a map does is JSON.
set = $(if $(filter [% {%,$(patsubst $(firstword $(subst =, ,$(1)))=%,%,$(1))),--set-json,--set) '$(1)'
$(BUILD)/%/mesh.json: $(BUILD)/%/role.json $(BUILD)/%/namespace-id.json $(MESH_IMAGES:%=$(BUILD)/\%/image-%.json) | $(BIN)/appmesh-install
	cat $^ | $(BIN)/appmesh-install --chart $(CHART) $(MESH_FLAGS) $(foreach value,$(VALUES),$(call set,$(value))) $(if $(strip $(ADOPT)),--adopt) $(as) $(plan) $(to)

# What the documents were made for. A step that was run for something else is not done.
settings := $(foreach variable,REGION CHART VALUES POLICIES IDENTITY PROJECT SCHEME NAMESPACE NAMESPACE_TYPE PORTS,$(variable)=$(strip $($(variable)))) \
	APP1=$(app1) $(template) $(images1) APP2=$(app2) $(images2)
underscored = $(subst $(space),_,$(strip $(1)))
made-for-these = $(filter =$(call underscored,$(settings)),=$(call underscored,$(file < $(BUILD)/$(1)/settings)))
$(foreach cluster,$(PAIR),$(if $(call made-for-these,$(cluster)),,$(eval $(BUILD)/$(cluster)/settings: anew)))
.PHONY: anew
$(BUILD)/%/settings:
	mkdir -p $(@D)
	echo '$(strip $(settings))' > $@

# --- what the clusters share
applied := $(if $(app1),$(ONE)/$(name1).json) $(if $(app2),$(TWO)/$(name2).json)
# A plan has told of the namespace before.
namespace-made := $(if $(PLANNING),,$(if $(two),$(TWO),$(ONE))/namespace.json)
shared := $(namespace-made) $(ONE)/mesh.json $(if $(two),$(TWO)/mesh.json $(TWO)/ingress.json)

# Cloud Map takes its time: the controllers need no more than the id of what it makes, which it knows at once.
namespace-id = $(BIN)/cloudmap-ns --name $(NAMESPACE) --type $(NAMESPACE_TYPE) --no-wait
ifeq ($(two),)
$(ONE)/namespace-id.json: $(ONE)/$(FACTS).json $(ONE)/settings | $(BIN)/cloudmap-ns
	$(namespace-id) $(as) $(plan) < $< $(to)
else
$(TWO)/namespace-id.json: $(TWO)/$(FACTS).json $(ONE)/$(FACTS).json $(TWO)/settings | $(BIN)/cloudmap-ns
	$(namespace-id) --from $(ONE)/$(FACTS).json $(as) $(plan) < $< $(to)

$(ONE)/namespace-id.json: $(ONE)/$(FACTS).json $(TWO)/namespace-id.json $(ONE)/settings | $(BIN)/cloudmap-ns
	$(namespace-id) --from $(TWO)/namespace-id.json $(as) $(plan) < $< $(to)

# Nodes are let in while the controllers start, for a rule takes effect a moment later. It is looked at again once the
# applications run: their pods may have security groups of their own.
let-in = $(BIN)/sg-open --from $(ONE)/$(FACTS).json $(PORTS:%=--port %)
$(TWO)/ingress-nodes.json: $(TWO)/$(FACTS).json $(ONE)/$(FACTS).json $(TWO)/settings | $(MESH_IMAGES:%=$(ONE)/image-%.json) $(BIN)/sg-open
	$(let-in) $(as) $(plan) < $< $(to)

$(TWO)/ingress.json: $(TWO)/$(if $(PLANNING),$(FACTS),ingress-nodes).json $(ONE)/$(FACTS).json $(TWO)/settings | $(if $(PLANNING),,$(applied)) $(BIN)/sg-open
	$(let-in) $(as) $(plan) < $< $(to)
endif

# Only what is still being made is waited for. What Cloud Map could not make is begun anew the next time.
$(BUILD)/%/namespace.json: $(BUILD)/%/namespace-id.json | $(BIN)/cloudmap-ns
	wait=cat; if grep -q '"operation"' $<; then wait="$(BIN)/cloudmap-ns $(as)"; fi; \
	$$wait < $< > $@.tmp || { code=$$?; rm $<; exit $$code; }
	mv $@.tmp $@

# --- the applications: that of cluster 1 may name VirtualServices of cluster 2, so it starts when those have their ARNs
documents1 := $(ONE)/mesh.json $(images1:%=$(ONE)/image-%.json)
documents2 := $(TWO)/mesh.json $(images2:%=$(TWO)/image-%.json)

ifneq ($(app2),)
$(TWO)/$(name2)-arn.json: $(documents2) $(call inputs,$(app2)) | $(namespace-made) $(BIN)/manifest-apply
	cat $(documents2) | $(BIN)/manifest-apply $(name2) $(call manifests,$(app2)) --no-wait $(as) $(plan) $(to)

$(TWO)/$(name2).json: $(TWO)/$(name2)-arn.json | $(BIN)/manifest-apply
	$(BIN)/manifest-apply $(name2) $(as) < $< $(to)
endif

ifneq ($(app1),)
$(ONE)/$(name1).json: $(documents1) $(call inputs,$(app1)) $(if $(app2),$(TWO)/$(name2)-arn.json) | $(namespace-made) $(BIN)/manifest-apply
	cat $(documents1) | $(BIN)/manifest-apply $(name1) $(call manifests,$(app1)) $(set1) $(if $(app2),--from $(TWO)/$(name2)-arn.json) $(as) $(plan) $(to)
endif

.PHONY: joined
joined: named $(applied) $(shared) ## Do what `make all` does, but for the check and the probe

.PHONY: probe
probe: named $(applied) | $(shared) $(BIN)/color-probe ## Ask URL, or the front end, COUNT times: the answers must be as EXPECT says
	$(BIN)/color-probe $(URL) --count $(COUNT) $(expect:%=--expect %) $(if $(strip $(VIA_CLUSTER)),--via-cluster) $(REPORT:%=--report %) < $(if $(app1),$(ONE)/$(name1).json,$(ONE)/mesh.json) > $(ONE)/probe.json

# --- taking it down: from the names alone, so it also works when a run died before it wrote its file
GONE := $(BUILD)/gone
ifneq ($(two),)
$(addprefix $(GONE)/,app2.json namespace.json ingress.json $(CLUSTER2).%): as = $(as2)
endif
# The documents say what has gone before, or in a plan would have.
gone = --delete $(as) $(plan) > $@.tmp && mv $@.tmp $@

.PHONY: destroy
destroy: named | $(BIN)/plan-total ## Remove everything again, but nothing that others use
	rm -rf $(GONE) $(BUILD)/plan
	+$(look) gone-mesh PLANNING=--quiet BUILD=$(BUILD)/plan
	$(MAKE) --no-print-directory gone
	rm -rf $(PAIR:%=$(BUILD)/%) $(GONE) $(BUILD)/plan
	+$(look) gone PLANNING=--quiet BUILD=$(BUILD)/plan
	$(BIN)/plan-total --left $(BUILD)/plan/gone/*.json

.PHONY: plan-destroy
plan-destroy: named | $(BIN)/plan-total ## Tell what `make destroy` would remove, change nothing
	rm -rf $(BUILD)/plan
	+$(look) gone PLANNING=yes BUILD=$(BUILD)/plan
	$(BIN)/plan-total $(BUILD)/plan/gone/*.json

# First of all in a plan: a controller that others still need stops it.
.PHONY: gone gone-mesh
gone-mesh: $(PAIR:%=$(GONE)/%.mesh.json)
gone: $(PAIR:%=$(GONE)/%.$(FACTS).json) $(GONE)/namespace.json $(if $(two),$(GONE)/ingress.json) $(IMAGES:%=$(GONE)/image-%.json)

$(GONE):
	mkdir -p $@
# Where the documents of what has gone begin: with the application, if there is one.
begin = -n --cluster $(1) $(region)
from1 := $(if $(app1),< $(GONE)/app1.json,$(call begin,$(CLUSTER1)))
from2 := $(if $(app2),< $(GONE)/app2.json,$(if $(or $(same),$(if $(two),,one)),$(from1),$(call begin,$(CLUSTER2))))
apps-gone := $(if $(app1),$(GONE)/app1.json) $(if $(app2),$(GONE)/app2.json)

$(GONE)/app1.json: | $(BIN)/manifest-apply $(GONE)
	$(BIN)/manifest-apply $(name1) $(call begin,$(CLUSTER1)) $(call manifests,$(app1)) $(gone)
$(GONE)/app2.json: $(if $(app1),$(GONE)/app1.json) | $(BIN)/manifest-apply $(GONE)
	$(BIN)/manifest-apply $(name2) $(if $(same),$(from1),$(call begin,$(CLUSTER2))) $(call manifests,$(app2)) $(gone)
$(GONE)/namespace.json: $(apps-gone) | $(BIN)/cloudmap-ns $(GONE)
	$(BIN)/cloudmap-ns --name $(NAMESPACE) --type $(NAMESPACE_TYPE) $(from2) $(gone)
$(GONE)/ingress.json: $(apps-gone) | $(BIN)/sg-open $(GONE)
	$(BIN)/sg-open --from-cluster $(CLUSTER1) $(from2) $(gone)
$(GONE)/%.mesh.json: $(apps-gone) | $(BIN)/appmesh-install $(GONE)
	$(BIN)/appmesh-install --chart $(CHART) $(if $(filter $*,$(CLUSTER2)),$(from2),$(from1)) $(gone)
ROLES := $(if $(filter role,$(FACTS)),pod-identity,irsa-role)
$(GONE)/%.role.json: $(GONE)/%.mesh.json | $(BIN)/$(ROLES)
	$(BIN)/$(ROLES) < $< $(gone)
$(GONE)/%.oidc.json: $(GONE)/%.role.json | $(BIN)/oidc-assoc
	$(BIN)/oidc-assoc < $< $(gone)
define gone-image
$(GONE)/image-$(1).json: $(PAIR:%=$(GONE)/%.mesh.json) | $(BIN)/ecr-push
	$(BIN)/ecr-push $(1) -n $(region) $(if $(PAIR),--cluster $(subst $(space), --and-cluster ,$(PAIR))) --repository $(PROJECT)/$(1) --force $$(gone)
endef
$(foreach image,$(IMAGES),$(eval $(call gone-image,$(image))))

# --- what would change: the rules above, which then print what they would do
.PHONY: plan
plan: named | $(BIN)/plan-total ## Tell what `make all` would add, change and remove; change nothing
	rm -rf $(BUILD)/plan
	+$(look) planned PLANNING=yes BUILD=$(BUILD)/plan
	$(BIN)/plan-total $(sort $(CLUSTER1:%=$(BUILD)/plan/%/*.json) $(CLUSTER2:%=$(BUILD)/plan/%/*.json))

.PHONY: planned
planned: $(if $(app1),$(ONE)/$(name1).json) $(if $(app2),$(TWO)/$(name2)-arn.json) $(shared)

# --- this machine only
LOCALCLOUD = $(BIN)/localcloud --state $(BUILD)/localcloud

.PHONY: demo
demo: build ## Run the whole flow in two real clusters on this machine, no AWS account
	rm -rf $(BUILD)/demo
	$(LOCALCLOUD) up -- make --no-print-directory -j8 all CLUSTER1=c1 CLUSTER2=c2 REGION=us-west-2 BUILD=$(BUILD)/demo

.PHONY: cloud
cloud: build ## Start the two clusters of `make demo` and leave them up, to try things in (Linux, root)
	$(LOCALCLOUD) up
	echo "clusters c1 and c2 are up, of an AWS account of this machine's own"
	echo "  enter it      $(LOCALCLOUD) run -- bash"
	echo "  join them     $(LOCALCLOUD) run -- make -j8 all CLUSTER1=c1 CLUSTER2=c2 REGION=us-west-2 BUILD=$(BUILD)/cloud"
	echo "  look          $(LOCALCLOUD) run -- kubectl --context c2 get pods -A"
	echo "  take it down  $(LOCALCLOUD) down"

.PHONY: test
test: lint ## Run the tests, the whole flow in the local cloud included
	cargo build --release --workspace --all-targets
	command -v chromium > /dev/null || apt-get install --yes --no-install-recommends chromium > /dev/null || true
	bin=$$($(BIN)/localcloud parts); ENVOY=$$bin/envoy HELM=$$bin/helm KUBECTL=$$bin/kubectl CHROMIUM=$$(command -v chromium || true) \
		$(MAKE) --no-print-directory -j2 test-cloud test-all-else

# Side by side, for both wait most of the time. By their names, each test is in one of the two. What of it runs make is
# no part of this one.
.PHONY: test-cloud test-all-else
apart := env -u MAKEFLAGS -u MFLAGS -u MAKELEVEL cargo test --release --workspace
test-cloud:
	$(apart) --test 'cl*'
test-all-else:
	$(apart) --lib --bins --examples --benches --test '[!c]*' --test 'c[!l]*'

.PHONY: test-migration
test-migration: build ## Move from Amazon's controller and back under load, and replay what Flagger and Argo Rollouts ask for
	cargo test --release --workspace --test cloud migration -- --ignored --nocapture

.PHONY: test-nothing-lost
test-nothing-lost: build ## Roll out, scale, kill and upgrade under a constant load through the mesh, of which nothing may fail
	cargo test --release --workspace --test cloud nothing_lost -- --ignored --nocapture
	python3 bench/tables.py

.PHONY: test-faults
test-faults: build ## Try every fault: what comes of it is in docs/faults.md
	cargo test --release --workspace --test cloud faults_ -- --ignored --test-threads 1

# What libFuzzer is guided by: counters at every edge, and what is compared there. All of it is stable, but it concerns
# every crate, so this has a target folder of its own.
FUZZ_FLAGS := --cfg fuzzing --cfg fuzzing_libfuzzer -A unused_imports -C debug-assertions -C passes=sancov-module \
	$(addprefix -C llvm-args=-sanitizer-coverage-,level=4 inline-8bit-counters pc-table trace-compares)

# The crates that have a property, as options of cargo: what links no libFuzzer cannot be built with these flags.
FUZZED = $(shell grep -rl --include='*.rs' '::property! {' bins common mesh pod-role | sed 's|src/.*|Cargo.toml|' | sort -u | \
	xargs sed -n 's/^name = "\(.*\)"/-p \1/p')

.PHONY: fuzz
fuzz: ## Let libFuzzer look for input that breaks a property of the tests, SECONDS for each (first builds for minutes)
	RUSTFLAGS="$(FUZZ_FLAGS)" FUZZ_SECONDS=$(SECONDS) FUZZ_INPUT=$(INPUT) \
		cargo test --release $(FUZZED) --lib --bins --no-fail-fast --target-dir target/fuzz $(PROPERTY)

# The headers of the tools are help texts, read in a terminal: a URL or a <name> in them is no mark-up.
RUSTDOC_FLAGS := -D warnings -A rustdoc::bare_urls -A rustdoc::invalid_html_tags

.PHONY: bench
bench: build ## Measure everything beside what you would run in its place: bench/README.md (longer than bench-scale)
	for bench in flow timeline push sidecar probe scale; do python3 bench/$$bench.py; done
	python3 bench/tables.py

.PHONY: bench-scale
bench-scale: build ## Measure the controller with up to 1,000 VirtualNodes and 500 sidecars (half an hour, 2 GB)
	python3 bench/scale.py
	python3 bench/tables.py

.PHONY: lint
lint: ## Check formatting, lints, documentation
	python3 bench/tables.py --check
	cargo fmt --all --check
	cargo clippy --release --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="$(RUSTDOC_FLAGS)" cargo doc --release --workspace --no-deps

.PHONY: deny
deny: ## Check the dependencies: licences, sources, unwanted crates (cargo-deny)
	cargo fetch --locked --quiet
	cargo deny --offline check --hide-inclusion-graph bans licenses sources

# --- building
.PHONY: build
build: ## Build the tools and, on Linux, the images' programs
	cargo build --release$(if $(MAC),, --workspace)

# A program that is there is used as it is, even with -B: `make build` brings it up to date.
missing := $(sort $(filter-out $(wildcard $(BIN)/* $(STATIC)/*),$(TOOLS:%=$(BIN)/%) $(IMAGES:%=$(STATIC)/%)))
ifneq ($(missing),)
$(missing) &:
	$(MAKE) --no-print-directory build
endif

INSTALLED = $(DESTDIR)$(PREFIX)
PAGES := man/man1 bash-completion/completions fish/vendor_completions.d zsh/site-functions

.PHONY: install
install: $(if $(filter target/%,$(BIN)),build) ## Install the tools, their manual pages and completions under PREFIX
	mkdir -p $(INSTALLED)/bin $(PAGES:%=$(INSTALLED)/share/%)
	install -m 755 $(TOOLS:%=$(BIN)/%) $(INSTALLED)/bin
	for tool in $(TOOLS); do \
		generate="$(INSTALLED)/bin/$$tool --generate" share=$(INSTALLED)/share; \
		$$generate man > $$share/man/man1/$$tool.1; \
		$$generate complete-bash > $$share/bash-completion/completions/$$tool; \
		$$generate complete-fish > $$share/fish/vendor_completions.d/$$tool.fish; \
		$$generate complete-zsh > $$share/zsh/site-functions/_$$tool; \
	done

# --- a release
DIST = $(BUILD)/dist
# With the pages that these link to.
RELEASED := ARCHITECTURE.md CHANGELOG.md CONTRIBUTING.md LICENSE Makefile README.md bench/README.md bench/results/flow.svg \
	charts docs examples manifests policies schemas tests/localcloud/README.md
PROGRAMS := $(TOOLS) appmesh-controller capture colorapp feapp
version = $(shell sed -nE 's/^version(:| =) "?([^"]*)"?/\2/p' $(1))
# What nodes of EKS are, as far as rustup has a standard library for it here.
libraries = $(wildcard $(addprefix $(shell rustc --print sysroot)/lib/rustlib/,aarch64-unknown-linux-gnu x86_64-unknown-linux-gnu))
targets = $(or $(strip $(TARGETS)),$(notdir $(libraries)))
# The same files give the same bytes.
pack = tar --create --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner --mode=u=rwX,go=rX -C $(1) $(2) | gzip -n

# Its programs are built apart from those of `make build`, which know the folders that they were built in.
MADE := target/dist
THIRD_PARTY = $(MADE)/THIRD-PARTY-LICENSES

# What else a release needs of cargo, built once for each version.
AUDITABLE := target/dist-tools/cargo-auditable@0.7.7/bin/cargo-auditable
CYCLONEDX := target/dist-tools/cargo-cyclonedx@0.5.9/bin/cargo-cyclonedx
ABOUT := target/dist-tools/cargo-about@0.9.3/bin/cargo-about
$(AUDITABLE) $(CYCLONEDX) $(ABOUT):
	cargo install --locked $(if $(filter $(ABOUT),$@),--features cli) --root $(@D:%/bin=%) $(notdir $(@D:%/bin=%))

.PHONY: dist
dist: dist-programs dist-sbom dist-licenses ## Pack a release into BUILD/dist, an archive for each of TARGETS (Linux)
	rm -rf $(DIST)
	for target in $(targets); do \
		release=crossmesh-$(call version,Cargo.toml)-$$target; \
		mkdir -p $(DIST)/$$release/bin; \
		install -m 755 $(PROGRAMS:%=$(MADE)/$$target/release/%) $(DIST)/$$release/bin; \
		cp -r --parents $(RELEASED) $(DIST)/$$release; \
		cp -r $(MADE)/$$target/sbom $(THIRD_PARTY) $(DIST)/$$release; \
		$(call pack,$(DIST),$$release) > $(DIST)/$$release.tar.gz; \
		rm -r $(DIST)/$$release; \
	done
	$(call pack,charts,appmesh-controller) > $(DIST)/appmesh-controller-$(call version,charts/appmesh-controller/Chart.yaml).tgz
	cd $(DIST) && sha256sum -- *.tar.gz *.tgz > SHA256SUMS

.PHONY: dist-programs dist-manifests dist-sbom dist-licenses
dist-programs: | $(AUDITABLE)
	release/build.sh $(AUDITABLE) $(MADE) "$(targets)" $(PROGRAMS)

dist-manifests:
	release/manifests.sh $(MADE)/manifests $(targets)

dist-sbom: dist-manifests | $(CYCLONEDX)
	for target in $(targets); do \
		release/sbom.sh $(CYCLONEDX) $(MADE)/manifests $(MADE)/$$target/sbom $$target $(PROGRAMS); \
	done

dist-licenses: dist-manifests | $(ABOUT)
	$(ABOUT) about generate --manifest-path $(MADE)/manifests/Cargo.toml --config release/about.toml --workspace \
		$(targets:%=--target %) --frozen --fail --format json --output-file $(MADE)/about.json
	python3 release/third_party.py $(MADE)/about.json > $(THIRD_PARTY).tmp
	mv $(THIRD_PARTY).tmp $(THIRD_PARTY)

.PHONY: dist-check
dist-check: ## Pack a release, build it once more in another folder: it must be the same, and say what is in it
	git diff --quiet HEAD || { echo "commit first: the release is compared with one of a clone" >&2; exit 1; }
	$(MAKE) --no-print-directory dist
	python3 release/check.py $(DIST) "$(targets)" $(PROGRAMS)

.PHONY: clean
clean: ## Remove what was built here (not what was made in AWS: see destroy)
	rm -rf $(BUILD) target

.PHONY: help
help: ## Show this
	@sed -nE 's/^([a-z-]+):.*## (.*)/  \1\t\2/p' $(MAKEFILE_LIST) | expand -t 16
	@echo; echo 'Variables:'
	@sed -nE 's/^([A-Z_0-9]+) \?= *([^#]*)# (.*)/  \1=\2\t\3/p' $(MAKEFILE_LIST) | expand -t 36
