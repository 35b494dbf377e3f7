drop view pgqueue.workflow_status;
drop view pgqueue.workflow_node_status;

delete from pgqueue.chores
where name = 'workflows';

drop trigger jobs_tell_workflow on pgqueue.jobs;
drop function pgqueue.tell_workflow();
drop table pgqueue.workflow_news;
drop table pgqueue.job_dependencies;
drop table pgqueue.workflow_nodes;
drop table pgqueue.workflows;

update pgqueue.schema_info
set version = 6;
